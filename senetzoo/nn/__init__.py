"""Parts that every family is built from: slots, stems, drop path."""
