"""The architectures, one file per family. They don't depend on gates, policies or weights."""
