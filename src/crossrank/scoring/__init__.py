"""Logits in, scores out."""
