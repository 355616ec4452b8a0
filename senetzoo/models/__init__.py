"""The architectures, one file per family. They know nothing of gates, policies or weights."""
