"""Fit curves that turn scores into probabilities, and thresholds with a guarantee, on judged pairs."""
