"""`source-metadata.csv`: which XML document, of a type, says what about what."""

from __future__ import annotations

from collections.abc import Collection

from ingestd.config import MetadataXmlSettings
from ingestd.errors import Violation
from ingestd.metadata.tables import Row, Shape, Table
from ingestd.metadata.xml import Schemas

FILE = "metadata/source-metadata.csv"
RESERVED = "CUSTOM"
"""The type of other columns of `metadata.csv`; no document may have it."""
SHAPE = Shape(
    name=FILE,
    example="filename,metadata,type / objects/letter.txt,letter-mods.xml,mods",
    required=("filename", "metadata", "type"),
    allowed=("filename", "metadata", "type"),
)


UNFIT = "the document cannot stand in a METS"


def schemas_of(settings: MetadataXmlSettings) -> Schemas:
    """The schemas that a site has set."""
    return Schemas({key: path or None for key, path in settings.schemas.items()})


def document_fault(table: Table, row: Row, problem: str) -> Violation:
    """What is wrong with the document that a row names."""
    place = table.at(row.line, row.column("metadata"))
    return Violation(path=place, rule="document", expected="valid XML", actual=problem)


def row_faults(table: Table, row: Row, documents: Collection[str]) -> list[Violation]:
    """What is wrong with a row; `documents` are the cells that name a file which is there."""

    def fault(name: str, expected: str) -> Violation:
        return table.violation(row, row.column(name), name, expected)

    found = []
    if not row.get("filename"):
        found.append(fault("filename", "what the document describes, such as objects/letter.txt or objects"))
    if not row.get("type"):
        found.append(fault("type", "a type, such as mods"))
    if row.get("type") == RESERVED:
        found.append(fault("type", f"another type than {RESERVED}, which the columns of metadata.csv have"))
    if row.get("metadata") and row.get("metadata") not in documents:
        found.append(fault("metadata", "a file within the folder metadata"))
    return found
