"""A web page that compares networks on an image, side by side."""
