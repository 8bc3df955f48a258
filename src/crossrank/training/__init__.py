"""Where models learn; needs torch."""
