"""Scores to a ranking: stages, and the one place that sorts."""
