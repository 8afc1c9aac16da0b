"""Callback style: the loop and what it serves. Never imports greenlet."""
