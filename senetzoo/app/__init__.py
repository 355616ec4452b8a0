"""A page that shows what networks make of an image, side by side."""
