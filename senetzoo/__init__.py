"""senetzoo: image classifiers in which where channel attention goes is a value you pass."""

__version__ = "0.1.0"
