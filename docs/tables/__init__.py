"""What fills the generated sections of a page: one file a page, named after it."""
