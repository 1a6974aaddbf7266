"""What results say of a package: the AIP, the DIP, their stored copies, and what became of the files."""

from __future__ import annotations

import uuid

from ingestd.messages.options import CompressionAlgorithm
from ingestd.messages.values import Checksum, Outgoing, Time


class PointerData(Outgoing):
    """The pointer file beside a packed AIP: a METS that says what the package is, and how it was packed."""

    url: str
    checksum: Checksum


class EncryptionData(Outgoing):
    """How an AIP was encrypted: to which keys, by their fingerprints."""

    program: str
    version: str = ""
    keys: list[str]


class StoredData(Outgoing):
    """One stored copy of the AIP or the DIP, and how it is known to be intact."""

    location: str
    url: str
    size_bytes: int
    checksum: Checksum
    stored_at: Time
    verified_at: Time
    verified_by: str
    """How it was verified."""
    version: str = ""
    """Of the object, where the layout or the store keeps versions."""
    store_checksum: str = ""
    """What the store itself says of it, in its own terms (an ETag)."""
    pointer: PointerData | None = None
    """Of an AIP that is packed."""


class AipData(Outgoing):
    """The AIP."""

    id: uuid.UUID
    name: str
    """Its folder's name, `NAME-UUID`."""
    size_bytes: int
    checksum: Checksum | None
    """Of the packed file; none for an AIP left as a folder, whose bag manifests say it."""
    format: CompressionAlgorithm
    mets_path: str
    mets_checksum: Checksum
    verified_at: Time | None = None
    verified_by: str = ""
    """How the packed AIP was verified here, before it was stored."""
    encryption: EncryptionData | None = None
    stored: list[StoredData] = []


class DipData(Outgoing):
    """The DIP of the AIP: a tar of access copies, thumbnails, texts and a METS."""

    id: uuid.UUID
    name: str
    """Its folder's name: that of the AIP."""
    size_bytes: int
    checksum: Checksum
    mets_path: str
    mets_checksum: Checksum
    access_copies: int
    thumbnails: int
    texts: int
    stored: list[StoredData]


class NormalizedData(Outgoing):
    """Originals of one format, and what one command made of them; `manual`: somebody did, before."""

    format: str
    puid: str = ""
    into: str
    into_puid: str = ""
    command: str
    tool: str = ""
    files: int


class NormalizationData(Outgoing):
    """What became of the originals for one purpose, by outcome; `logs/normalization.csv` of the AIP has each."""

    purpose: str
    """`preservation`, `access` or `thumbnail`."""
    outcomes: dict[str, int]
    """`normalized`, `default`, `manual`, `failed`, `tool not installed`, `not asked for`, `kept as it is`, `no rule`,
    `format not known`."""
    made: list[NormalizedData] = []
    """From which format into which: those with the most files, at most 20."""


class CountsData(Outgoing):
    """What the package holds."""

    files: int = 0
    originals: int = 0
    derivatives: int = 0
    submission_documentation: int = 0
    metadata: int = 0
    removed: int = 0
    directories: int = 0
    size_bytes: int = 0
    identified: int = 0


class VirusScanData(Outgoing):
    """How many files came out of the scan for malware in which way; each has an event in the METS."""

    clean: int
    infected: int
    not_scanned: int
    scanner: str = ""
    """What scanned, with its version and that of its signatures; empty where there was none."""
