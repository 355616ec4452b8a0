"""Training: a recipe in, weights and a record out."""
