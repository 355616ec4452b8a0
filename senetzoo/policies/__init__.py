"""Policies, which say where attention goes: selectors, algebra, text form, attach and explain."""
