"""Preservation requests: what comes in."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from ingestd.dublincore import DC_ELEMENTS, DC_TERMS
from ingestd.errors import RequestError
from ingestd.messages.options import LEFT_OUT
from ingestd.messages.rights import RequestIdentifier, RequestRights
from ingestd.messages.values import (
    Checksum,
    Context,
    Incoming,
    Label,
    Name,
    Time,
    check_context,
    unsound,
    validated,
)
from ingestd.oais import Reingest, TransferType

MAX_BODY_BYTES = 64 * 1024
REQUEST_TYPE = "org.ingestd.preservation.request.v1"
_STORED = re.compile(r"urn:uuid:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://ingestd.org/aip")
"""Namespace of AIP identifiers: the same request always makes the same AIP."""


class RequestSource(Incoming):
    """What is to be preserved."""

    location: Annotated[str, Field(min_length=1, max_length=4096)]
    """A path, or a `file`, `http`, `https`, `s3`, `az`, `abfs` or `gs` URL: of a folder, file, archive, bag or AIP; or,
    to reingest it, the `urn:uuid:…` of a stored AIP."""
    checksum: Checksum | None = None
    """What a file or archive must be."""
    credentials: Label | None = None
    """The name of credentials in the service's settings."""


Said = Annotated[str, Field(max_length=4000)]


class DiskImaging(Incoming):
    """How the disk images of a transfer were made: the form of Archivematica's transfers of type *disk image*."""

    model_config = ConfigDict(extra="forbid")

    media_number: Said = ""
    label_text: Said = ""
    media_manufacture: Said = ""
    serial_number: Said = ""
    media_format: Said = ""
    media_density: Said = ""
    source_filesystem: Said = ""
    imaging_process_notes: Said = ""
    imaging_interface: Said = ""
    examiner: Said = ""
    imaging_date: Said = ""
    imaging_success: Said = ""
    image_format: Said = ""
    imaging_software: Said = ""
    image_fixity: Said = ""


def _transfer_type(value: Any) -> Any:
    """Accept Archivematica's spellings too: `unzipped bag`, `zipfile`, `disk image`, `DSpace`, `Dataverse`."""
    if not isinstance(value, str):
        return value
    plain = value.strip().lower().replace(" ", "_")
    return {"unzipped_bag": "bag", "zipped_bag": "bag", "zipfile": "standard"}.get(plain, plain)


def _dublin_core(name: str) -> str:
    if name not in DC_ELEMENTS | DC_TERMS:
        near = difflib.get_close_matches(name, sorted(DC_ELEMENTS | DC_TERMS), n=1)
        hint = f": did you mean {near[0]}?" if near else ", as title, creator or isPartOf is"
        raise ValueError(f"a name of Dublin Core{hint}")
    return name


class RequestMetadata(Incoming):
    """What the request itself says. Files in `metadata/` may say more; what both say of the same thing, the request
    says rightly.
    """

    dc: dict[Annotated[str, Field(pattern=r"^[A-Za-z]{1,40}$"), AfterValidator(_dublin_core)], list[str] | str] = Field(
        default_factory=dict
    )
    """Dublin Core elements and terms of the package as a whole, each with one value or several."""
    rights: list[RequestRights] = Field(default_factory=list)
    """Rights of the package, of files and of folders, as PREMIS has them."""
    identifiers: list[RequestIdentifier] = Field(default_factory=list)
    """Further identifiers of the package: DOI, ARK, Handle, the number in a catalogue."""
    disk_image: DiskImaging = DiskImaging()
    """How disk images were made; source metadata of the package."""

    def pairs(self) -> dict[str, list[str]]:
        return {name: [value] if isinstance(value, str) else value for name, value in self.dc.items()}

    def as_records(self) -> dict[str, Any]:
        """What is said, as a package has it: its `metadata`, `rights`, `identifiers` and `imaging`."""
        return {
            "metadata": self.pairs(),
            "rights": [one.claim() for one in self.rights],
            "identifiers": [(one.type, one.value) for one in self.identifiers],
            "imaging": [(name, value) for name, value in self.disk_image.model_dump().items() if value],
        }


class Target(Incoming):
    """Where the AIP is to be stored."""

    location: Label | None = None
    """The name of a configured location."""


class OwnRule(Incoming):
    """A rule of the format policy registry that holds for one request."""

    model_config = ConfigDict(extra="forbid")

    purpose: Annotated[str, Field(max_length=100)]
    """`preservation`, `access`, `validation`, …"""
    format: Annotated[str, Field(max_length=200)]
    """The format version: its PUID, or its id in the registry."""
    command: Annotated[str, Field(max_length=200)]
    """The id of a command that the registry has."""
    note: Annotated[str, Field(max_length=2000)] = ""
    """Why."""


class WithoutRule(Incoming):
    """A rule of the registry that a request does without."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["rule"] = "rule"
    """As in a registry folder, which may be without other records, too."""
    id: Annotated[str, Field(max_length=400)]
    """The rule's id, as `ingestd fpr rules` shows it."""
    reason: Annotated[str, Field(max_length=2000)] = ""


class OwnPolicy(Incoming):
    """What one request wants otherwise than the format policy registry in force; tables as in a registry folder."""

    model_config = ConfigDict(extra="forbid")

    rule: list[OwnRule] = Field(default_factory=list)
    """Rules that take the place of those for the same purpose and format version."""
    disable: list[WithoutRule] = Field(default_factory=list)
    """Rules that are not followed."""


class Batch(Incoming):
    """A group of requests of one tenant, told of together when all have ended (`batch.completed`)."""

    id: Label
    size: Annotated[int, Field(ge=1, le=10_000)]
    """How many requests it has."""
    stop_on_failure: bool = False
    """Once one has failed, those that are not begun are cancelled."""


class ReingestOf(Incoming):
    """How a stored AIP is made into its next version."""

    model_config = ConfigDict(extra="forbid")

    type: Reingest = Reingest.METADATA
    """`metadata`: descriptions, rights and identifiers alone; `partial`: preservation copies and a DIP anew, too, as
    `processing` asks for them; `full`: the content is examined anew, too, from the scan for malware on."""
    metadata: RequestSource | None = None
    """A folder, archive or URL of what stands in `metadata/` of a transfer: `metadata.csv`, `rights.csv`, …"""


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class PreservationRequest(Incoming):
    """The `data` of a request."""

    source: RequestSource
    type: Annotated[TransferType, BeforeValidator(_transfer_type)] = TransferType.AUTO
    """What the source is. `auto`: a bag where it is one, else `standard`; `standard`: no bag, whatever it looks like;
    `bag`: refused where it is none; `disk_image`: as standard, with `metadata.disk_image`; `dspace`: an export with the
    `mets.xml` of DSpace or in its Simple Archive Format, refused without (`auto` reads it, too);
    `dataverse`: a dataset with its `metadata/dataset.json`, refused without (`auto` reads it, too);
    `maildir`: maildirs, whose attachments become files; refused without one; `reingest`: an AIP, by its `urn:uuid:…` in
    archival storage or wherever else it is."""
    reingest: ReingestOf | None = None
    """For the type `reingest` alone; by default metadata only."""
    name: Name | None = None
    """The package's name; by default the source's."""
    tenant: Label = "default"
    """On whose behalf; a word of the routing keys. Left out, it is the one that the request's routing key names."""
    collection: Label = "default"
    """What it belongs to; a word of the routing key of results."""
    accession: Label | None = None
    """Accession number, recorded in a `registration` event."""
    external_identifier: Label | None = None
    """The submitter's own identifier; repeated in every event and in the bag."""
    idempotency_key: Label | None = None
    """The same key makes the same AIP; by default a digest of source, checksum and options."""
    priority: Priority = Priority.NORMAL
    """The routing key chooses the queue, and with it the turn; `submit` makes the key from this, and a retried request
    waits there.
    """
    processing: dict[str, Any] = Field(default_factory=dict)
    """Processing options that differ from the defaults."""
    fpr: OwnPolicy = OwnPolicy()
    """Rules of the format policy registry for this request alone, where the site allows them."""
    metadata: RequestMetadata = RequestMetadata()
    target: Target = Target()
    expires_at: Time | None = None
    """Not begun by then, it is rejected (`request.expired`)."""
    batch: Batch | None = None
    deadline_seconds: Annotated[float, Field(gt=0)] | None = None
    """How long the whole may take from the time it is accepted."""
    client_context: Context = Field(default_factory=dict)
    """Anything; comes back with every event (at most 4 KiB)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse what a reingest cannot do, and what it alone can."""
        if self.reingests is None:
            if self.reingest is not None:
                raise ValueError("`reingest` is for requests of type `reingest` alone")
            if self.stored_aip is not None:
                raise ValueError("`urn:uuid:` names a stored AIP: the type must be `reingest`")
            return self
        given = [name for name in ("name", "accession") if getattr(self, name)]
        if given:
            raise ValueError(f"an AIP keeps what it was first given: leave out {', '.join(given)}")
        off = sorted(name for name in LEFT_OUT[self.reingests] if self.processing.get(name))
        if off:
            raise ValueError(f"a reingest of type `{self.reingests}` does not do: {', '.join(off)}")
        return self

    @property
    def reingests(self) -> Reingest | None:
        """How much is done again, in a request of type `reingest`."""
        if self.type is not TransferType.REINGEST:
            return None
        return self.reingest.type if self.reingest else Reingest.METADATA

    @property
    def stored_aip(self) -> uuid.UUID | None:
        return stored_aip(self.source.location)

    @property
    def key(self) -> str:
        """The idempotency key, given or derived."""
        if self.idempotency_key:
            return self.idempotency_key
        return self.content_digest()

    def content_digest(self) -> str:
        """Digest of what is asked for: two requests with the same one ask for the same AIP."""
        asked = self.model_dump(
            mode="json",
            include={"source", "type", "name", "processing", "metadata", "accession", "collection", "target"},
        )
        asked["source"].pop("credentials", None)
        if self.reingest is not None:
            asked["reingest"] = self.reingest.model_dump(mode="json", exclude={"metadata": {"credentials"}})
        if self.fpr != OwnPolicy():
            asked["fpr"] = self.fpr.model_dump(mode="json")
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def package_id(self) -> uuid.UUID:
        """The AIP's identifier: UUID v5 of tenant and idempotency key."""
        return uuid.uuid5(NAMESPACE, f"{self.tenant}\n{self.key}")


def stored_aip(location: str) -> uuid.UUID | None:
    """The AIP that a source is by its UUID (`urn:uuid:…`): one in archival storage."""
    found = _STORED.fullmatch(location)
    return uuid.UUID(found[1]) if found else None


class RequestEnvelope(Incoming):
    """A request as a CloudEvent."""

    specversion: Literal["1.0"] = "1.0"
    type: Literal["org.ingestd.preservation.request.v1"] = "org.ingestd.preservation.request.v1"
    id: Annotated[str, Field(min_length=1, max_length=200)]
    """The request's identifier; with `source` unique."""
    source: Annotated[str, Field(min_length=1, max_length=500)]
    """Who asks, as a URI reference; the requester agent of the AIP."""
    time: Time | None = None
    traceparent: Annotated[str, Field(max_length=100)] | None = None
    """W3C trace context, carried through."""
    data: PreservationRequest


def read_request(body: bytes, *, message_id: str = "") -> RequestEnvelope:
    """Read a message's body: a CloudEvent, or (as `application/json`) the bare data of one.

    Raises `RequestError` with every violation; its `extra` is empty when not even JSON was found.
    """
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(f"the message has {len(body)} bytes; at most {MAX_BODY_BYTES} are read")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the message is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError("the message is JSON, but not an object")
    if "specversion" not in raw and "data" not in raw:
        identity = message_id or hashlib.sha256(body).hexdigest()[:32]
        raw = {"id": identity, "source": "urn:ingestd:bare", "data": raw}
    return parse_request(raw)


def parse_request(raw: Mapping[str, Any]) -> RequestEnvelope:
    """Validate a request's envelope and data. Raises `RequestError` with every violation."""
    return validated("request", raw, RequestEnvelope.model_validate)


def read_context(raw: Any) -> dict[str, Any]:
    """Read the `client_context` of a request that is refused: empty when it is what makes the request invalid."""
    if not isinstance(raw, dict) or unsound(raw):
        return {}
    try:
        return check_context(raw)
    except ValueError:
        return {}
