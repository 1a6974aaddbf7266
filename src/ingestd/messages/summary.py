"""`logs/summary.json` of an AIP: what is in it and how it was made, in numbers."""

from __future__ import annotations

import uuid
from typing import Final, Literal

from pydantic import Field

from ingestd.messages.events import ToolData, WarningData
from ingestd.messages.values import Outgoing, Time

SUMMARY_SCHEMA: Final = "https://ingestd.org/schemas/summary.schema.json"


class FormatCount(Outgoing):
    """Files of one format; without a PUID, it is not known."""

    name: str
    version: str = ""
    puid: str = ""
    files: int
    size_bytes: int


class EventCount(Outgoing):
    """PREMIS events of one type that ended alike, of all files, removed ones too."""

    type: str
    outcome: str = ""
    count: int


class PackageSummary(Outgoing):
    """What is in an AIP and how it was made. The METS is the record; this is for a glance, and for programs."""

    schema_: Literal["https://ingestd.org/schemas/summary.schema.json"] = Field(default=SUMMARY_SCHEMA, alias="$schema")
    version: Literal[1] = 1
    """Of this document's shape; what is added later changes it not."""
    id: uuid.UUID
    name: str
    label: str
    """The AIP's folder, `NAME-UUID`."""
    accession: str = ""
    external_identifier: str = ""
    organization: str
    organization_identifier: str
    software: str
    requested_at: Time
    made_at: Time
    """When the METS was written."""
    files: int
    size_bytes: int
    directories: int
    removed: int = 0
    """Files that were received and are not in the AIP."""
    uses: dict[str, int] = {}
    """Files by their use, as in the METS."""
    formats: list[FormatCount] = []
    events: list[EventCount] = []
    warnings: list[WarningData] = []
    """Up to the writing of this file."""
    tools: list[ToolData] = []
    processing: dict[str, bool | int | str] = {}
    """The processing options in force."""
    workflow_digest: str = ""
    registry_digest: str = ""
    """Of the format policy registry that was in force."""
