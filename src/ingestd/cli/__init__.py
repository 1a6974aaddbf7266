"""The command line. Exit codes: 0 success, 1 failed, 2 rejected or bad usage, 130 interrupted."""

from __future__ import annotations

from ingestd.cli.main import main

__all__ = ["main"]
