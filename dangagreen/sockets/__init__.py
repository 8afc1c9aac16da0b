"""Sockets in callback style, and listeners. No greenlets here."""
