"""What is asked for and what was received, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ingestd.premis import Digest, DigestAlgorithm

if TYPE_CHECKING:
    from ingestd.keeping import CredentialSettings

WINDOW = 256


class Checksum(Protocol):
    """What a source must be: lower-case hexadecimal `value`. `premis.Digest` and the request's checksum are such."""

    @property
    def algorithm(self) -> DigestAlgorithm: ...

    @property
    def value(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the content is: a path, a `file://` URL (percent-encoded bytes), an `http(s)://` URL, or the URL of an
    object store (`s3`, `az`, `abfs`, `gs`), which may need `credentials`.
    """

    location: str
    checksum: Checksum | None = None
    credentials: CredentialSettings | None = None


class Kind(StrEnum):
    """What a source is. What a URL leads to is known when it was fetched."""

    FOLDER = "folder"
    FILE = "file"
    ARCHIVE = "archive"
    REMOTE = "remote"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What is known of a source before it is received.

    `path` is the real path of what is local. `size_bytes` is what is cheap to know: of a file or archive, not of a
    folder nor of a URL. `name` is the last part of the location.
    """

    kind: Kind
    name: str
    path: Path | None = None
    size_bytes: int | None = None


class NoteCode(StrEnum):
    """What can be noted of something that was received, or left out, without refusing it."""

    LINK_COPIED = "content.link_copied"
    LINK_LEFT_OUT = "content.link_left_out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something a curator should know: it becomes a warning of the package."""

    code: NoteCode
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A file or directory that now is in the package's folder.

    `path` is relative with `/` between parts, decoded by `os.fsdecode`. A directory has no digest. What is `left_out`
    is only told of, for its note: nothing is at its path. `modified_at` is None where the source does not say it, or
    says a time that no calendar has. `more` are digests that a manifest in the source will ask for, by the names that
    manifests give the algorithms.
    """

    path: str
    size_bytes: int = 0
    digest: Digest | None = None
    modified_at: datetime | None = None
    directory: bool = False
    left_out: bool = False
    note: Note | None = None
    more: Mapping[str, str] = field(default_factory=dict)


def modified_at(mtime_ns: int | None) -> datetime | None:
    """Read nanoseconds since 1970, to the microsecond; None for a time that no calendar has."""
    if mtime_ns is None:
        return None
    try:
        seconds, rest = divmod(mtime_ns, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (OverflowError, ValueError, OSError):
        return None
