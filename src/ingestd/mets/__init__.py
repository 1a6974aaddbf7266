"""METS and PREMIS XML: writing, validating and reading the documents that describe an AIP and its DIP.

The only package that knows metsrw and lxml.
"""

from __future__ import annotations

from ingestd.mets.dip import TEXTS, place_in_dip, write_dip
from ingestd.mets.fitting import unfit, unfit_premis, why_unfit
from ingestd.mets.pointer import Pointer, pointer_name, replicated, write_pointer
from ingestd.mets.reader import read
from ingestd.mets.records import ReadAgent, ReadDescription, ReadEntity, ReadEvent, ReadFile, Record, Summary
from ingestd.mets.transforms import Transform, read_transforms
from ingestd.mets.validation import validate
from ingestd.mets.writer import Written, write

__all__ = [
    "TEXTS",
    "Pointer",
    "ReadAgent",
    "ReadDescription",
    "ReadEntity",
    "ReadEvent",
    "ReadFile",
    "Record",
    "Summary",
    "Transform",
    "Written",
    "place_in_dip",
    "pointer_name",
    "read",
    "read_transforms",
    "replicated",
    "unfit",
    "unfit_premis",
    "validate",
    "why_unfit",
    "write",
    "write_dip",
    "write_pointer",
]
