"""Events and results: what goes out, and how a request ends."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ingestd import errors
from ingestd.errors import Code, Violation
from ingestd.messages.packages import AipData, CountsData, DipData, NormalizationData, VirusScanData
from ingestd.messages.requests import RequestEnvelope
from ingestd.messages.values import Outgoing, Time, safe_text, shortened
from ingestd.premis import now

TYPE_PREFIX = "org.ingestd."

_VIOLATION_CHARACTERS = 500
_VIOLATIONS_BYTES = 24 * 1024
"""Of an event, which has 64 KiB at most."""
_MOST_VIOLATIONS = 100
_WORD = re.compile(r"[^a-z0-9_-]+")


def routing_word(text: str) -> str:
    """Make one word of a routing key: `[a-z0-9_-]{1,64}`."""
    return _WORD.sub("-", text.lower()).strip("-")[:64] or "default"


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
    REQUEST_WAITING = "request.waiting"
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
    """A link that had been begun before, in this attempt or an earlier one, is begun once more."""
    AIP_CREATED = "aip.created"
    AIP_STORED = "aip.stored"
    FIXITY_CHECKED = "fixity.checked"
    FIXITY_FAILED = "fixity.failed"
    CONTROL_REFUSED = "control.refused"
    BATCH_COMPLETED = "batch.completed"

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


def end_of(code: Code) -> tuple[EventType, Outcome]:
    """How a request ends that an error of this code ended."""
    if code.category == "cancelled":
        return EventType.REQUEST_CANCELLED, Outcome.CANCELLED
    if code is Code.STORAGE_OUTCOME_UNKNOWN:
        return EventType.REQUEST_OUTCOME_UNKNOWN, Outcome.OUTCOME_UNKNOWN
    return EventType.REQUEST_FAILED, Outcome.FAILED


class ViolationData(Outgoing):
    path: str
    rule: str
    expected: str = ""
    actual: str = ""


class ToolFailureData(Outgoing):
    name: str
    version: str = ""
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False


class ErrorData(Outgoing):
    """An error that a person or a program can act on."""

    code: Code
    category: str
    responsible: errors.Responsible
    retryable: bool
    retry: errors.Retry
    title: str
    detail: str
    violations: list[ViolationData] = []
    violations_left_out: int = 0
    """How many more were found than there is room for in a message."""
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
            detail=safe_text(shortened(error.detail, 2000)),
            violations=(listed := _listed(error.violations)),
            violations_left_out=len(error.violations) - len(listed),
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
            stderr_tail=safe_text(error.stderr_tail[-4000:]),
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


def _listed(violations: Sequence[Violation]) -> list[ViolationData]:
    """As many violations as an event has room for, and one at least."""
    listed: list[ViolationData] = []
    room = _VIOLATIONS_BYTES
    for violation in violations[:_MOST_VIOLATIONS]:
        data = ViolationData(
            path=safe_text(violation.path[:4096]),
            rule=violation.rule,
            expected=safe_text(shortened(violation.expected, _VIOLATION_CHARACTERS)),
            actual=safe_text(shortened(violation.actual, _VIOLATION_CHARACTERS)),
        )
        room -= len(data.model_dump_json().encode())
        if listed and room < 0:
            break
        listed.append(data)
    return listed


class LinkData(Outgoing):
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


class WarningData(Outgoing):
    """Warnings of one code, counted, with a few of them as samples."""

    code: str
    count: int
    samples: Annotated[list[str], BeforeValidator(lambda samples: [safe_text(words) for words in samples])] = []


class ToolData(Outgoing):
    """A program or library that worked on the package."""

    name: str
    version: str
    used_for: str = ""


class BatchData(Outgoing):
    """How the requests of a batch ended."""

    id: str
    size: int
    outcomes: dict[Outcome, int]


class TimingData(Outgoing):
    accepted_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None
    seconds: float = 0
    links: list[LinkData] = []


class FixityData(Outgoing):
    """What an audit found of one stored copy."""

    location: str
    package: uuid.UUID
    kind: str
    name: str
    url: str
    algorithm: str
    expected: str
    found: str
    """The digest that was found, or in words what differs or is gone."""
    good: bool
    checked_at: Time
    seconds: float
    repaired_from: str = ""
    """The location whose good copy took the damaged one's place."""
    error: str = ""
    """Why the copy could not be read; then nothing is known of it."""


class EventData(Outgoing):
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
    dip: DipData | None = None
    """Once it is stored, where one was asked for."""
    counts: CountsData | None = None
    virus_scan: VirusScanData | None = None
    """Where files were scanned, or should have been."""
    normalization: list[NormalizationData] = []
    warnings: list[WarningData] = []
    error: ErrorData | None = None
    """Why it failed; of `request.waiting`, what it waits for."""
    batch: BatchData | None = None
    """`batch.completed` only."""
    workflow_digest: str | None = None
    timing: TimingData | None = None
    tools: list[ToolData] = []
    fixity: FixityData | None = None
    """`fixity.checked` and `fixity.failed` only, whose request is named by the package."""
    program_runs: int | None = None
    """External programs started for this attempt."""
    work_folder: str | None = None
    """For embedded runs that can be resumed: the package's working folder."""


_ANSWERS = uuid.uuid5(uuid.NAMESPACE_URL, "https://ingestd.org/answer")


class Event(Outgoing):
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

    def to(self, asker: RequestEnvelope, correlation_id: str | None) -> Event:
        """Address a result to somebody who asked for the same by another id, or would wait for ever.

        Whoever asks again, or is answered by two workers, gets the same event again.
        """
        told = {
            "request_id": asker.id,
            "correlation_id": correlation_id,
            "client_context": asker.data.client_context,
        }
        data = self.data.model_copy(update=told)
        identity = uuid.uuid5(_ANSWERS, f"{self.id}\n{asker.source}\n{asker.id}")
        return self.model_copy(update={"id": str(identity), "subject": asker.id, "data": data})

    def routing_key(self) -> str:
        """`<tenant>.<collection>.<outcome>` for results, `<tenant>.<aggregate>.<event>` for events."""
        tenant = routing_word(self.data.tenant)
        if self.data.outcome is not None and self.kind.terminal:
            return f"{tenant}.{routing_word(self.data.collection)}.{self.data.outcome.value}"
        return f"{tenant}.{self.kind.value}"
