"""Reports of training runs: one page that needs no network, and the same as Markdown."""
