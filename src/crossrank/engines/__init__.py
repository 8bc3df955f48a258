"""Batches in, logits out."""
