"""Files in, a config and arrays out."""
