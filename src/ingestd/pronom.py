"""PRONOM persistent unique identifiers (PUIDs) of file formats, e.g. `fmt/43`.

Source: The National Archives, PRONOM; the prefixes `fmt` and `x-fmt` are PRONOM's, the others are those that
Fido and Archivematica mint for formats that PRONOM does not have.
"""

from __future__ import annotations

import re

REGISTRY_NAME = "PRONOM"
"""The value of PREMIS `formatRegistryName`."""

_PUID = re.compile(r"(?:x-fmt|fmt|fido-fmt|archivematica-fmt|x-sfw-fmt|x-sf-fmt)/[0-9A-Za-z.]+")


def is_puid(text: str) -> bool:
    """Say whether `text` has the form of a PUID (it may still name no format)."""
    return _PUID.fullmatch(text) is not None
