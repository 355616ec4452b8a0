"""Utilities for the whole package: checks of values, files, text, and the environment."""
