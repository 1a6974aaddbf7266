"""The message contract: preservation requests in, events and results out.

Structured-mode CloudEvents 1.0 in JSON. These models are the contract: `schemas/` is generated from them, and a test
keeps the two equal. Of a request, only `source.location` is required; unknown keys are ignored, except in
`processing`, where a misspelt option must not be lost in silence. Sizes are bytes, times RFC 3339 in UTC.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from ingestd import errors
from ingestd.errors import Code, RequestError, Violation
from ingestd.premis import DigestAlgorithm, now, rfc3339

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "org.ingestd."
REQUEST_TYPE = f"{TYPE_PREFIX}preservation.request.v1"
MAX_BODY_BYTES = 64 * 1024
MAX_CONTEXT_BYTES = 4 * 1024
MAX_DEPTH = 32
"""Most lists and objects within one another in a request: what is journalled must be readable again."""
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://ingestd.org/aip")
"""Namespace of AIP identifiers: the same request always makes the same AIP."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"[^a-z0-9_-]+")


def routing_word(text: str) -> str:
    """Make one word of a routing key: `[a-z0-9_-]{1,64}`."""
    return _WORD.sub("-", text.lower()).strip("-")[:64] or "default"


class _In(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _context(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_CONTEXT_BYTES:
        msg = f"must not be longer than {MAX_CONTEXT_BYTES} bytes as JSON"
        raise ValueError(msg)
    return value


def _name(value: str) -> str:
    if value != value.strip() or value in {".", ".."} or any(c == "/" or ord(c) < 32 or ord(c) == 127 for c in value):
        msg = "must not contain slashes or control characters, nor begin or end with a space"
        raise ValueError(msg)
    return value


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339, return_type=str, when_used="json")]
Context = Annotated[dict[str, Any], AfterValidator(_context)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)]
Label = Annotated[str, Field(min_length=1, max_length=200)]


# --- processing options ----------------------------------------------------------------------------------------------


class CompressionAlgorithm(StrEnum):
    """How the AIP is packed."""

    UNCOMPRESSED = "uncompressed"
    TAR = "tar"
    TAR_BZIP2 = "tar_bzip2"
    TAR_GZIP = "tar_gzip"
    S7_COPY = "s7_copy"
    S7_BZIP2 = "s7_bzip2"
    S7_LZMA = "s7_lzma"
    TAR_ZSTD = "tar_zstd"


def _algorithm(value: Any) -> Any:
    """Accept a3m's spellings too: `S7_COPY`, and its enum's numbers 1 to 7."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 7:
        return list(CompressionAlgorithm)[value - 1]
    return value.lower() if isinstance(value, str) else value


class ProcessingConfig(BaseModel):
    """What is done with a package. In a request only what is named overrides the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    assign_uuids_to_directories: bool = True
    """Give every directory a UUID and describe it in the METS."""
    scan_for_viruses: bool = True
    """Look for malware in every file with ClamAV."""
    examine_contents: bool = False
    """Look for personal data and other patterns with bulk_extractor."""
    generate_transfer_structure_report: bool = True
    """Write a listing of the original tree into the AIP."""
    document_empty_directories: bool = True
    """Add a second structMap that also names empty directories."""
    extract_packages: bool = True
    """Unpack archives, disk images and mailboxes found among the objects, by the formats that `identify_transfer`
    finds."""
    delete_packages_after_extraction: bool = False
    """Remove an archive once it is unpacked."""
    identify_transfer: bool = True
    """Identify the formats of the objects."""
    identify_submission_and_metadata: bool = True
    """Identify the formats of submission documentation and metadata files."""
    identify_before_normalization: bool = True
    """Identify again before normalization."""
    normalize: bool = True
    """Make preservation copies where the format policy asks for them."""
    normalize_for_access: bool = False
    """Make access copies for a DIP."""
    generate_thumbnails: bool = False
    """Make thumbnails for a DIP."""
    transcribe_files: bool = True
    """Read text from images (OCR)."""
    transcription_language: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)?(?:\+[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)?)*$", max_length=200)
    ] = "eng"
    """Languages of the texts as Tesseract names them, joined by `+`: `deu+eng`, `script/Latin`."""
    validate_formats: bool = True
    """Check files, and the preservation copies made of them, against the specifications of their formats."""
    perform_policy_checks_on_originals: bool = True
    """Check originals against a site's MediaConch policies."""
    perform_policy_checks_on_preservation_derivatives: bool = True
    """Check preservation copies against a site's MediaConch policies."""
    aip_compression_level: Annotated[int, Field(ge=1, le=9)] = 1
    """1 is fastest, 9 is smallest."""
    aip_compression_algorithm: Annotated[CompressionAlgorithm, BeforeValidator(_algorithm)] = (
        CompressionAlgorithm.S7_COPY
    )
    """How the AIP is packed."""

    @classmethod
    def resolve(cls, *layers: Mapping[str, Any]) -> ProcessingConfig:
        """Lay options over the defaults, the later over the earlier.

        Raises `RequestError` (`request.unknown_option` or `request.schema_invalid`) that names every wrong one.
        """
        merged = {name: value for layer in layers for name, value in layer.items()}
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            violations = tuple(_violation(item, "processing") for item in error.errors())
            unknown = all(violation.rule == "unknown_option" for violation in violations)
            code = Code.REQUEST_UNKNOWN_OPTION if unknown else Code.REQUEST_SCHEMA_INVALID
            names = ", ".join(violation.path for violation in violations)
            raise RequestError(f"processing options are wrong: {names}", code=code, violations=violations) from error

    def as_options(self) -> dict[str, bool | int | str]:
        values: dict[str, bool | int | str] = self.model_dump(mode="json")
        return values


# --- requests --------------------------------------------------------------------------------------------------------


class Checksum(_In):
    """A message digest."""

    algorithm: DigestAlgorithm
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{32,128}$")]
    """Lower-case hexadecimal."""


class RequestSource(_In):
    """What is to be preserved."""

    location: Annotated[str, Field(min_length=1, max_length=4096)]
    """A path, or a `file`, `http` or `https` URL: of a folder, a file or an archive."""
    checksum: Checksum | None = None
    """What a file or archive must be."""
    credentials: Label | None = None
    """The name of credentials in the service's settings."""


class RequestMetadata(_In):
    """What the request itself says of the package as a whole."""

    dc: dict[Annotated[str, Field(pattern=r"^[A-Za-z]{1,40}$")], list[str] | str] = Field(default_factory=dict)
    """Dublin Core elements and terms, each with one value or several."""

    def pairs(self) -> dict[str, list[str]]:
        return {name: [value] if isinstance(value, str) else value for name, value in self.dc.items()}


class Target(_In):
    """Where the AIP is to be stored."""

    location: Label | None = None
    """The name of a configured location."""


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class PreservationRequest(_In):
    """The `data` of a request."""

    source: RequestSource
    name: Name | None = None
    """The package's name; by default the source's."""
    tenant: Label = "default"
    """On whose behalf; a word of the routing keys."""
    collection: Label = "default"
    """What it belongs to; a word of the routing key of results."""
    accession: Label | None = None
    """Accession number, recorded in a `registration` event."""
    external_identifier: Label | None = None
    """The submitter's own identifier; repeated in every event and in the bag."""
    idempotency_key: Label | None = None
    """The same key makes the same AIP; by default a digest of source, checksum and options."""
    priority: Priority = Priority.NORMAL
    processing: dict[str, Any] = Field(default_factory=dict)
    """Processing options that differ from the defaults."""
    metadata: RequestMetadata = RequestMetadata()
    target: Target = Target()
    deadline_seconds: Annotated[float, Field(gt=0)] | None = None
    """How long the whole may take from the time it is accepted."""
    client_context: Context = Field(default_factory=dict)
    """Anything; comes back with every event (at most 4 KiB)."""

    @property
    def key(self) -> str:
        """The idempotency key, given or derived."""
        if self.idempotency_key:
            return self.idempotency_key
        return self.content_digest()

    def content_digest(self) -> str:
        """Digest of what is asked for: two requests with the same one ask for the same AIP."""
        asked = self.model_dump(
            mode="json", include={"source", "name", "processing", "metadata", "accession", "collection", "target"}
        )
        asked["source"].pop("credentials", None)
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def package_id(self) -> uuid.UUID:
        """The AIP's identifier: UUID v5 of tenant and idempotency key."""
        return uuid.uuid5(NAMESPACE, f"{self.tenant}\n{self.key}")


class RequestEnvelope(_In):
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
    if unsound := _unsound(raw):
        raise RequestError(f"the request is not valid: {unsound.path}", violations=(unsound,))
    try:
        return RequestEnvelope.model_validate(raw)
    except ValidationError as error:
        violations = tuple(_violation(item) for item in error.errors())
        names = ", ".join(sorted({violation.path for violation in violations}))
        raise RequestError(f"the request is not valid: {names}", violations=violations) from error


def read_context(raw: Any) -> dict[str, Any]:
    """Read the `client_context` of a request that is refused: empty when it is what makes the request invalid."""
    if not isinstance(raw, dict) or _unsound(raw):
        return {}
    try:
        return _context(raw)
    except ValueError:
        return {}


def _unsound(raw: Any) -> Violation | None:
    """Find what would not come back from the journal as it went in: the first such value, level by level."""
    level: list[tuple[str, Any]] = [("", raw)]
    for _ in range(MAX_DEPTH):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, Mapping):
                inner += [(f"{path}.{_safe(str(key))}", item) for key, item in value.items()]
                inner += [(path, key) for key in value if isinstance(key, str)]
            elif isinstance(value, list | tuple):
                inner += [(f"{path}.{index}", item) for index, item in enumerate(value)]
            elif rule := _unsound_scalar(value):
                return Violation(path=path.lstrip("."), rule=rule, expected="text and numbers as JSON has them")
        level = inner
    return Violation(path="", rule="too_deep", expected=f"at most {MAX_DEPTH} levels") if level else None


def _unsound_scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite"
    return "not_unicode" if isinstance(value, str) and _SURROGATE.search(value) else ""


def _safe(text: str) -> str:
    """Write text so that JSON can hold it: bytes of a name that are not UTF-8 become `%HH`."""
    return _SURROGATE.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def _violation(item: Any, prefix: str = "") -> Violation:
    path = ".".join([*([prefix] if prefix else []), *map(str, item["loc"])])
    actual = "" if item["type"] == "missing" else json.dumps(item.get("input"), default=str)[:200]
    if prefix == "processing" and item["type"] == "extra_forbidden":
        known = list(ProcessingConfig.model_fields)
        near = difflib.get_close_matches(str(item["loc"][0]), known, n=1)
        expected = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        return Violation(path=path, rule="unknown_option", expected=expected, actual=actual)
    return Violation(path=path, rule=item["type"], expected=item["msg"], actual=actual)


# --- what comes out --------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """How a request ended; the last word of a result's routing key."""

    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_WARNINGS = "succeeded_with_warnings"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    OUTCOME_UNKNOWN = "outcome_unknown"


class RequestState(StrEnum):
    """Where a request is. Terminal states are spelled as `Outcome`."""

    RECEIVED = "received"
    VALIDATING = "validating"
    ACCEPTED = "accepted"
    RUNNING = "running"
    STORING = "storing"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_WARNINGS = "succeeded_with_warnings"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    OUTCOME_UNKNOWN = "outcome_unknown"

    @property
    def terminal(self) -> bool:
        return self.value in set(Outcome)


class EventType(StrEnum):
    """CloudEvents types that ingestd publishes, without prefix and version."""

    REQUEST_ACCEPTED = "request.accepted"
    REQUEST_REJECTED = "request.rejected"
    REQUEST_STARTED = "request.started"
    REQUEST_PROGRESS = "request.progress"
    REQUEST_FAILED = "request.failed"
    REQUEST_CANCELLED = "request.cancelled"
    REQUEST_OUTCOME_UNKNOWN = "request.outcome_unknown"
    LINK_STARTED = "link.started"
    LINK_COMPLETED = "link.completed"
    LINK_FAILED = "link.failed"
    LINK_SKIPPED = "link.skipped"
    LINK_RETRYING = "link.retrying"
    AIP_CREATED = "aip.created"
    AIP_STORED = "aip.stored"

    @property
    def full(self) -> str:
        return f"{TYPE_PREFIX}{self.value}.v1"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = {
    EventType.REQUEST_REJECTED,
    EventType.REQUEST_FAILED,
    EventType.REQUEST_CANCELLED,
    EventType.REQUEST_OUTCOME_UNKNOWN,
    EventType.AIP_STORED,
}


class ViolationData(_Out):
    path: str
    rule: str
    expected: str = ""
    actual: str = ""


class ToolFailureData(_Out):
    name: str
    version: str = ""
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False


class ErrorData(_Out):
    """An error that a person or a program can act on."""

    code: Code
    category: str
    responsible: errors.Responsible
    retryable: bool
    retry: errors.Retry
    title: str
    detail: str
    violations: list[ViolationData] = []
    remediation: str
    link: str | None = None
    tool: ToolFailureData | None = None
    stderr_tail: str = ""

    @classmethod
    def of(cls, error: errors.IngestError, link: str | None = None) -> ErrorData:
        tool = error.tool
        return cls(
            code=error.code,
            category=error.code.category,
            responsible=error.entry.responsible,
            retryable=error.entry.retryable,
            retry=error.entry.retry,
            title=error.entry.title,
            detail=_safe(error.detail[:2000]),
            violations=[
                ViolationData(
                    path=_safe(v.path[:4096]),
                    rule=v.rule,
                    expected=_safe(v.expected[:500]),
                    actual=_safe(v.actual[:500]),
                )
                for v in error.violations[:100]
            ],
            remediation=error.remediation,
            link=link,
            tool=ToolFailureData(
                name=tool.name,
                version=tool.version,
                exit_code=tool.exit_code,
                signal=tool.signal,
                timed_out=tool.timed_out,
            )
            if tool
            else None,
            stderr_tail=_safe(error.stderr_tail[-4000:]),
        )

    def error(self) -> errors.IngestError:
        """Make the error again that this was made of."""
        tool = self.tool
        return errors.IngestError(
            self.detail,
            code=self.code,
            violations=tuple(
                Violation(path=v.path, rule=v.rule, expected=v.expected, actual=v.actual) for v in self.violations
            ),
            remediation=self.remediation,
            tool=errors.ToolFailure(**tool.model_dump()) if tool else None,
            stderr_tail=self.stderr_tail,
        )


class LinkData(_Out):
    """A link of the workflow, and how its job went."""

    id: str
    name: str
    group: str
    execute: str
    exit_code: int | None = None
    seconds: float | None = None
    files_done: int = 0
    files_total: int = 0
    tool: str = ""


class WarningData(_Out):
    """Warnings of one code, counted, with a few of them as samples."""

    code: str
    count: int
    samples: Annotated[list[str], BeforeValidator(lambda samples: [_safe(words) for words in samples])] = []


class ToolData(_Out):
    """A program or library that worked on the package."""

    name: str
    version: str
    used_for: str = ""


class StoredData(_Out):
    """One stored copy of the AIP, and how it is known to be intact."""

    location: str
    url: str
    size_bytes: int
    checksum: Checksum
    stored_at: Time
    verified_at: Time
    verified_by: str


class AipData(_Out):
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
    stored: list[StoredData] = []


class CountsData(_Out):
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


class TimingData(_Out):
    accepted_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None
    seconds: float = 0
    links: list[LinkData] = []


class EventData(_Out):
    """The `data` of every event and result. What does not apply to the event's type is null."""

    request_id: str
    package_id: uuid.UUID | None = None
    package_name: str | None = None
    attempt: int = 1
    sequence: int
    """Strictly increases within an attempt."""
    correlation_id: str | None = None
    idempotency_key: str | None = None
    tenant: str = "default"
    collection: str = "default"
    accession: str | None = None
    external_identifier: str | None = None
    client_context: dict[str, Any] = {}
    state: RequestState
    outcome: Outcome | None = None
    """Terminal events only."""
    link: LinkData | None = None
    aip: AipData | None = None
    counts: CountsData | None = None
    warnings: list[WarningData] = []
    error: ErrorData | None = None
    workflow_digest: str | None = None
    timing: TimingData | None = None
    tools: list[ToolData] = []
    program_runs: int | None = None
    """External programs started for this attempt."""
    work_folder: str | None = None
    """For embedded runs that can be resumed: the package's working folder."""


class Event(_Out):
    """An event or result as a CloudEvent."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    """Consumers deduplicate on it: an event that is published twice, after a crash, keeps it."""
    source: str = "/ingestd"
    type: str
    subject: str
    """The request's identifier."""
    time: Time = Field(default_factory=now)
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: str | None = None
    data: EventData

    @property
    def kind(self) -> EventType:
        return EventType(self.type.removeprefix(TYPE_PREFIX).removesuffix(".v1"))

    def routing_key(self) -> str:
        """`<tenant>.<collection>.<outcome>` for results, `<tenant>.<aggregate>.<event>` for events."""
        tenant = routing_word(self.data.tenant)
        if self.data.outcome is not None and self.kind.terminal:
            return f"{tenant}.{routing_word(self.data.collection)}.{self.data.outcome.value}"
        return f"{tenant}.{self.kind.value}"
