"""Deployment of trained networks: graph rewrites, engines, and export to files."""
