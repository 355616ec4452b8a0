"""Training: turns a recipe into weights and a record."""
