"""Real images: readers for data sets and files, and transforms as values."""
