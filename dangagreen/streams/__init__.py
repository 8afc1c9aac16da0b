"""Sequential style: the calls of a socket that look blocking and park their task."""
