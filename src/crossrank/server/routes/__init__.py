"""Routes: the endpoints of the server."""
