"""Documents that are encoded once: in memory, up to a limit, and on disk."""
