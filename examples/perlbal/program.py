"""The program: its command line, its start and its end."""

from __future__ import annotations


def main() -> int:
    return 0
