"""Weights: the manifest, where files are looked up, and how they are loaded."""
