"""How well a network does on labeled images."""
