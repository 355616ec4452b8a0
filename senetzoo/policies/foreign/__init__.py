"""Where gates can sit in the networks of other libraries: tables, read by name.

None of these libraries is imported: a block is known by the name of its class.
"""
