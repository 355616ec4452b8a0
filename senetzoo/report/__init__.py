"""Reports on training runs: a self-contained HTML page, and the same as Markdown."""
