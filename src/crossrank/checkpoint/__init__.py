"""Read a model's files: a config and arrays."""
