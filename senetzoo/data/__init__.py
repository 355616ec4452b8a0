"""Labeled images: readers for data sets and files."""

from senetzoo.data.sources import open as open
from senetzoo.data.sources import open_splits as open_splits
