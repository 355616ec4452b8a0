"""A local page that classifies an image with two networks side by side."""
