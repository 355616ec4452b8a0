"""Trained networks made ready to run: rewritten, handed to an engine, or written to a file."""
