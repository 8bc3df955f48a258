"""Engines turn batches into logits."""
