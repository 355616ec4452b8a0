"""Where attention goes, as a value: selectors, the algebra, its text form, attach and explain."""
