"""Documents that are read once: in memory, within a bound, and on disk."""
