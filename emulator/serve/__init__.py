"""Serving a guest that is not ours: the balloon behind a vhost-user socket, and its record."""
