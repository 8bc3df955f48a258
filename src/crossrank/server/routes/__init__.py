"""Routes: what is answered at which path."""
