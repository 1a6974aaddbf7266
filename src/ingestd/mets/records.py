"""What is read from a METS, as records that keep the words of whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ingestd.oais import DescriptionStatus, Section
from ingestd.premis import AgentLink, Format


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadEvent:
    """A PREMIS event as it is written, whatever vocabulary its writer used. `agents` as for `ReadFile.extensions`."""

    identifier: str
    type: str
    at: str
    detail: str
    outcome: str
    note: str
    agents: Sequence[AgentLink] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFile:
    """A file of the fileSec with what its amdSec says of it.

    `path` is relative to the AIP's root. `original_name` is as written, with `%transferDirectory%` and escapes.
    `derived_from` is the identifier of the file that this one was made of, or empty. `size_bytes` is None, and
    `digests` (algorithm → value) are empty, where the METS does not say. `identifiers` (type, value) are those beside
    its UUID, `label` its name in the structMap where that is not its path's. `rights` are its rights statements (with
    the first file of Archivematica's those of the package), each one XML element.

    Only where a METS is read whole: `agents` are all of its amdSec, and `extensions` what tools wrote about it, each
    one XML element; `object` is the PREMIS object that all this is read from, and `superseded` are objects and rights
    that later ones took the place of. What was `removed` has an amdSec, and neither path nor use.
    """

    identifier: str
    path: str
    use: str
    original_name: str = ""
    size_bytes: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    format: Format | None = None
    modified_at: str = ""
    derived_from: str = ""
    source_of: Sequence[str] = ()
    events: Sequence[ReadEvent] = ()
    identifiers: Sequence[tuple[str, str]] = ()
    label: str = ""
    agents: Sequence[AgentLink] = ()
    rights: Sequence[str] = ()
    extensions: Sequence[str] = ()
    object: ReadDescription | None = None
    superseded: Sequence[ReadDescription] = ()
    removed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAgent:
    identifier_type: str
    identifier: str
    name: str
    type: str
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadEntity:
    """The PREMIS intellectual entity of the package (`path` is empty) or of a directory."""

    identifier: str
    original_name: str
    path: str
    identifiers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadDescription:
    """Metadata of what is at `path`, in the words of `oais.Description`.

    What was said stands in `pairs`, or in `xml` where it is one element with more than a text in it, or in the file at
    `reference`, relative to the AIP's root. `standard` is True where `kind` is an MDTYPE of METS' own. `status` and
    `created_at` are as written, the first `original` unless said.
    """

    kind: str
    path: str
    pairs: Sequence[tuple[str, str]]
    section: Section = Section.DESCRIPTIVE
    xml: str = ""
    reference: str = ""
    status: str = DescriptionStatus.ORIGINAL
    created_at: str = field(default="", compare=False)
    group: str = ""
    standard: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What the document holds, in numbers. `directories` counts empty ones where the document names them."""

    created_at: str
    label: str
    files: int
    bytes: int
    directories: int
    events: int
    agents: int
    entities: int
    descriptions: int
    by_use: Mapping[str, int]
    by_format: Mapping[str, int]
    by_event: Mapping[str, int]
    more_struct_maps: int = 0
    """Besides the physical and the normative one."""


Record: TypeAlias = ReadFile | ReadAgent | ReadEntity | ReadDescription | Summary
