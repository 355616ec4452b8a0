"""Building blocks shared by all families: slots, stems, drop path."""
