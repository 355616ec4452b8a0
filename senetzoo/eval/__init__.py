"""Evaluation of networks on labeled images."""
