"""Servers and clients: serve, connect, graceful shutdown."""
