"""Judged pairs -> curves that make probabilities of scores, and thresholds that keep a promise."""
