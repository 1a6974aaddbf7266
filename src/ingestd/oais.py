"""OAIS packages as records, and the names of what is in them.

A package goes from what was received (SIP, here the *transfer*) to an Archival Information Package (AIP). Names are
bytes on disk; here they are `str` decoded by `os.fsdecode`, so that every byte comes back. `escape_name` writes
such a name as XML and JSON can hold it, `unescape_name` reads it back.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from ingestd.premis import Agent, AgentLink, Digest, Event, Format, Identifier, RightsStatement


class FileUse(StrEnum):
    """METS fileGrp USE, in the order in which the METS lists the groups (Archivematica's; thumbnails are in a DIP)."""

    ORIGINAL = "original"
    SUBMISSION_DOCUMENTATION = "submissionDocumentation"
    PRESERVATION = "preservation"
    SERVICE = "service"
    ACCESS = "access"
    LICENSE = "license"
    TEXT_OCR = "text/ocr"
    METADATA = "metadata"
    DERIVATIVE = "derivative"
    THUMBNAIL = "thumbnail"


DIP = "DIP"
"""The folder of what is made for a Dissemination Information Package: recorded, and no part of the AIP."""
DIP_USES = frozenset({FileUse.ACCESS, FileUse.THUMBNAIL})
"""Uses of the files in that folder. A folder of this name that was received has originals in it."""


class TransferType(StrEnum):
    """What a submitter says a transfer is (Archivematica's transfer types)."""

    AUTO = "auto"
    STANDARD = "standard"
    BAG = "bag"
    DISK_IMAGE = "disk_image"
    DSPACE = "dspace"
    DATAVERSE = "dataverse"
    MAILDIR = "maildir"
    REINGEST = "reingest"


class Reingest(StrEnum):
    """How much of a stored AIP is done again for its next version (Archivematica's kinds of reingest)."""

    METADATA = "metadata"
    PARTIAL = "partial"
    FULL = "full"


KEPT = "kept_aip"
"""The fact of a package that has, as JSON, what a reingest knows of the AIP: `id`, `name`, `rows`, and more."""
VERSIONS = "logs/versions"
"""The folder of an AIP that has, by number, the logs of the versions before it."""
TRANSFER_OPTIONS = "transfer_options"
"""The fact of a package that has, as JSON, the processing options that the transfer itself asks for."""
_MAX_LABEL = 200
"""Characters of a package's name in file names: transliterated, it may be longer than it was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One package, from the request to the AIP. `id` is the AIP's identifier. `asked` names the options of `processing`
    that the request itself gives.

    `name` is as the submitter gave it; `created_at` is when the request was accepted. `metadata` is what the request
    itself says of the package as a whole: Dublin Core element → values; so are its `rights`, its `identifiers`
    (type, value), and how disk images were made (`imaging`: field, value).

    In a reingest `id` and `name` are the AIP's as soon as it is read; until then, and always as `request_id`, the
    request's own. The first `kept_rows` of the files are those that the AIP had.
    """

    id: uuid.UUID
    name: str
    created_at: datetime
    processing: Mapping[str, bool | int | str]
    asked: frozenset[str] = frozenset()
    source: str = ""
    requester: str = ""
    tenant: str = "default"
    collection: str = "default"
    accession: str = ""
    external_identifier: str = ""
    workflow_digest: str = ""
    metadata: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rights: Sequence[RightsClaim] = ()
    identifiers: Sequence[tuple[str, str]] = ()
    type: TransferType = TransferType.AUTO
    imaging: Sequence[tuple[str, str]] = ()
    reingest: Reingest | None = None
    request_id: uuid.UUID | None = None
    kept_rows: int = 0

    @property
    def label(self) -> str:
        """The AIP's folder name, `NAME-UUID`, safe on every file system."""
        return f"{safe_name(self.name)[:_MAX_LABEL]}-{self.id}"

    def as_told(self, facts: Mapping[str, str]) -> Package:
        """The package with what its facts say: the processing options that its transfer asks for, the AIP it was."""
        told = json.loads(facts.get(TRANSFER_OPTIONS, "{}"))
        package = replace(self, processing={**self.processing, **told}) if told else self
        kept = json.loads(facts.get(KEPT, "{}"))
        if not kept:
            return package
        return replace(
            package,
            id=uuid.UUID(kept["id"]),
            name=kept["name"],
            kept_rows=kept.get("rows", 0),
            external_identifier=self.external_identifier or kept.get("external", ""),
        )

    @property
    def transfer_id(self) -> uuid.UUID:
        """The identifier of the transfer that the AIP is made of, as Archivematica's layout names it."""
        return uuid.uuid5(self.request_id or self.id, "transfer")

    @property
    def transfer_label(self) -> str:
        return f"{safe_name(self.name)[:_MAX_LABEL]}-{self.transfer_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a package.

    `path` is where it is now and `original` where it was received, both relative to the package's root with `/`
    between parts, e.g. `objects/a b.txt`. `id` never changes. A removed file keeps its record. `row` orders files as
    they were recorded; it is 0 for a file that is not recorded yet.
    """

    id: uuid.UUID
    path: str
    original: str
    use: FileUse = FileUse.ORIGINAL
    size_bytes: int = 0
    digest: Digest | None = None
    modified_at: datetime | None = None
    format: Format | None = None
    derived_from: uuid.UUID | None = None
    label: str = ""
    removed: bool = False
    row: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """One directory; `id` is None until a UUID is assigned to it. Paths as in `File`, no slash at the end."""

    path: str
    original: str
    id: uuid.UUID | None = None
    removed: bool = False
    row: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rename:
    """Everything at and below `old` is now at `new`. With `as_received`, original paths change along: the layout of
    the transfer changes, not a name that anybody gave.
    """

    old: str
    new: str
    as_received: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreDigest:
    """A digest of a file besides its own, calculated in the same read since a manifest will ask for it.

    `algorithm` is as manifests call it (RFC 8493, 2.4); `value` is lower-case hexadecimal.
    """

    file: uuid.UUID
    algorithm: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """What a tool wrote about a file: one XML element, for PREMIS objectCharacteristicsExtension (1.5.7)."""

    file: uuid.UUID
    tool: str
    xml: str


class Section(StrEnum):
    """Where in a METS metadata stand. TECHNICAL and RIGHTS: PREMIS of an earlier version, in the METS if superseded."""

    DESCRIPTIVE = "dmdSec"
    SOURCE = "sourceMD"
    TECHNICAL = "techMD"
    RIGHTS = "rightsMD"


class DescriptionStatus(StrEnum):
    """METS STATUS, in Archivematica's words. What is superseded or deleted stays in the METS as its history."""

    ORIGINAL = "original"
    ORIGINAL_SUPERSEDED = "original-superseded"
    UPDATE = "update"
    UPDATE_SUPERSEDED = "update-superseded"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """Metadata for one section of the METS. `target` is a file's or the package's id, or, for a dmdSec, a directory's.

    What is said comes in one of three ways. `pairs` are (element, value) in document order: `dc.title` and
    `dcterms.created` for the kind DC, plain names for any other. `xml` is one element, as `mets.embeddable` gives it.
    `reference` is the id of a file of the package, which is named by its path (METS mdRef).

    `kind` is `DC`, or the OTHERMDTYPE; with `standard`, an MDTYPE that METS itself knows, such as `MODS`. `created_at`
    is when the metadata were made, where that was not with this METS. Descriptions of one `group` are versions of one
    another.
    """

    target: uuid.UUID
    kind: str
    pairs: Sequence[tuple[str, str]] = ()
    section: Section = Section.DESCRIPTIVE
    xml: str = ""
    reference: uuid.UUID | None = None
    status: DescriptionStatus = DescriptionStatus.ORIGINAL
    created_at: datetime | None = None
    group: str = ""
    standard: bool = False


NOWHERE = uuid.UUID(int=0)
"""The object of a statement whose object is not known yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RightsClaim:
    """Rights that somebody says of something in the package; the statement's `object` is not known yet.

    `paths` are where it may be, likeliest first, as received: of a file, a directory, or `objects` for the package.
    `line` is where in its file it is said; 0 for the request.
    """

    paths: Sequence[str]
    statement: RightsStatement
    line: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Warning_:  # noqa: N801  `Warning` is Python's
    """Something that went wrong without ending the package. `path` is within the package, or empty."""

    code: str
    detail: str
    path: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleUse:
    """One run of the command that a rule of the format policy registry names, or of what stood in for it, on one file.

    `ok`: it did its work, whatever it found of the file. What was not run, for want of its tool, is no use.
    """

    rule: str
    command: str
    ok: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a step found out or did, to be recorded in one transaction.

    `files` and `directories` are recorded by id (path, for a directory): a known one is replaced by what is said here.
    Renames come first, then directories and files, then what refers to them. Rights, identifiers and agents that are
    known already are said once; of `revised` descriptions (by row) status and group change; `agents` are those of
    events that others recorded. `package` are facts of the package as a whole, by name; the later word wins.
    """

    renames: Sequence[Rename] = ()
    directories: Sequence[Directory] = ()
    files: Sequence[File] = ()
    digests: Sequence[MoreDigest] = ()
    events: Sequence[Event] = ()
    extensions: Sequence[Extension] = ()
    descriptions: Sequence[Description] = ()
    revised: Sequence[tuple[int, Description]] = ()
    rights: Sequence[RightsStatement] = ()
    identifiers: Sequence[Identifier] = ()
    agents: Sequence[Agent] = ()
    warnings: Sequence[Warning_] = ()
    rules: Sequence[RuleUse] = ()
    package: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Counts of what is in a package now (removed files are counted apart); `bytes` sums the files' sizes."""

    files: int = 0
    bytes: int = 0
    directories: int = 0
    removed: int = 0
    by_use: Mapping[str, int] = field(default_factory=dict)


class History(Protocol):
    """What is known of a package: the reading side of its journal.

    Everything that can be long comes in windows (lists of at most `window` records), so that memory does not grow with
    the package. `under` limits to one folder, without a slash at the end; removed files are left out.
    """

    def files(
        self,
        *,
        under: str = "",
        uses: Sequence[FileUse] = (),
        by_path: bool = False,
        after_row: int = 0,
        window: int = 256,
        removed: bool = False,
    ) -> AsyncIterator[Sequence[File]]: ...

    def directories(
        self, *, under: str = "", by_path: bool = False, after_row: int = 0, window: int = 256
    ) -> AsyncIterator[Sequence[Directory]]: ...

    async def files_at(self, paths: Sequence[str]) -> Mapping[str, File]: ...

    async def file_at(self, path: str) -> File | None: ...

    async def files_by_id(self, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, File]:
        """The files of these ids, removed ones left out."""
        ...

    async def files_received_as(self, originals: Sequence[str], *, removed: bool = False) -> Mapping[str, File]: ...

    async def digests(self, files: Sequence[uuid.UUID]) -> Mapping[tuple[uuid.UUID, str], str]:
        """What is known besides the files' own digests, by file and algorithm (`MoreDigest`)."""
        ...

    async def directories_at(self, paths: Sequence[str]) -> Mapping[str, Directory]: ...

    async def directory_received_as(self, original: str) -> Directory | None: ...

    async def taken(self, paths: Sequence[str]) -> frozenset[str]:
        """Of these paths, those at which a file or a directory now is."""
        ...

    async def events(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Event]]: ...

    async def imported_event_types(self) -> Sequence[str]:
        """The types of events that others recorded; nobody's list says which there are."""
        ...

    async def extensions(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Extension]]: ...

    async def descriptions(self, targets: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[tuple[int, Description]]]:
        """Per target its descriptions, each with its row, in the order of recording."""
        ...

    async def derivatives(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[File]]:
        """Per file those that were derived from it and are not removed, in the order of recording."""
        ...

    async def rights(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[RightsStatement]]:
        """Per object its rights statements, each with all its acts, in the order of recording."""
        ...

    async def identifiers(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Identifier]]: ...

    async def agents(self) -> Sequence[Agent]:
        """The package's own agents, which every event of ours is linked to."""
        ...

    async def linked_agents(self, links: Sequence[AgentLink]) -> Mapping[AgentLink, Agent]:
        """The agents of events and rights that others recorded, by their identifiers."""
        ...

    async def facts(self) -> Mapping[str, str]: ...

    async def totals(self, *, under: str = "") -> Totals:
        """Count what is in the AIP, of which what is made for a DIP is no part, or, with `under`, in that folder."""
        ...

    def warnings(self) -> AsyncIterator[Sequence[Warning_]]: ...

    async def tools(self) -> Sequence[tuple[str, str, str]]:
        """The programs and libraries that worked on the package: name, version, what they were used for."""
        ...


_UNSAFE = re.compile(r"[^A-Za-z0-9\-_.()]")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_ILLEGAL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|%(?=[0-9A-Fa-f]{2})")


def safe_name(name: str) -> str:
    """Make one file name safe everywhere: ASCII letters, digits and `-_.()`, never empty, never hidden by us.

    Transliterated where there is a usual way (`é` → `e`), `_` for everything else, as Archivematica does. Two names may
    become one: who calls this sees to collisions.
    """
    from unidecode import unidecode

    text = os.fsencode(name).decode("utf-8", errors="replace")
    plain = _UNSAFE.sub("_", unidecode(text, errors="replace", replace_str="_"))
    safe = _UNSAFE.sub("_", text) if not plain.strip("_") and text else (plain or "_")
    # `…` and `．` are transliterated to dots, which would hide the file, or lead out of its folder.
    return f"_{safe[1:]}" if safe.startswith(".") and (not text.startswith(".") or not safe.strip(".")) else safe


def escape_name(name: str) -> str:
    """Write a name so that XML and JSON can hold it and `unescape_name` gives back the same bytes.

    Bytes that are not UTF-8, control characters, and a `%` that two hexadecimal digits follow are written `%HH`,
    byte by byte (as RFC 3986, 2.1). Any other name stands for itself.
    """
    return _ILLEGAL.sub(_percent, name)


def _percent(match: re.Match[str]) -> str:
    passed = "surrogateescape" if "\udc80" <= match[0] <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", passed))


def unescape_name(text: str) -> str:
    """Read a name that `escape_name` wrote."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), os.fsencode(text)))
