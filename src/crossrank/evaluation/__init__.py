"""Does it help: datasets, measures, significance, disagreements and why, calibration, reports."""
