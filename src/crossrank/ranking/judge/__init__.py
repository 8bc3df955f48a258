"""A language model as a stage."""
