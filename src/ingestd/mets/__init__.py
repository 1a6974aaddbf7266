"""METS and PREMIS XML: writing, validating and reading the document that describes an AIP.

The only package that knows metsrw and lxml.
"""

from __future__ import annotations

from ingestd.mets.reader import read
from ingestd.mets.records import ReadAgent, ReadDescription, ReadEntity, ReadEvent, ReadFile, Record, Summary
from ingestd.mets.transforms import Transform, read_transforms
from ingestd.mets.validation import validate
from ingestd.mets.writer import Written, write

__all__ = [
    "ReadAgent",
    "ReadDescription",
    "ReadEntity",
    "ReadEvent",
    "ReadFile",
    "Record",
    "Summary",
    "Transform",
    "Written",
    "read",
    "read_transforms",
    "validate",
    "write",
]
