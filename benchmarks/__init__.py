"""Side-by-side runs against other libraries: ``make bench``. What was found stands in docs/performance-log.md."""
