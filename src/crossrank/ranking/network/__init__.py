"""Stages that call a service over HTTP, and what they share: retries, keys, one event loop."""
