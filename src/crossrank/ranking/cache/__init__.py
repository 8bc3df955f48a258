"""Scores kept between calls: in memory, or in a file that several processes share."""
