"""Where gates can sit in the networks of other libraries.

These libraries aren't imported: blocks are recognized by the names of their classes.
"""
