"""A package that uses senetzoo."""
