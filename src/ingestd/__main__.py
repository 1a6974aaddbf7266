"""`python -m ingestd`."""

from __future__ import annotations

import sys

from ingestd.cli import main

if __name__ == "__main__":
    sys.exit(main())
