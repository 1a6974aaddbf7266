"""Messages as they come and go: reading deliveries, and making the copies that are parked, put back or dead-lettered.

Everything in a delivery but the routing done by the broker is somebody else's input. Copies are made anew from what
is known to be harmless: never the sender's `user_id` or `expiration` (the broker would refuse, or lose, the copy),
never headers that route (`CC`, `BCC`) or that the broker itself writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aio_pika import DeliveryMode, Message
from aiormq.abc import DeliveredMessage

from ingestd import messages
from ingestd.errors import Code, IngestError, RequestError
from ingestd.journal import RequestRecord
from ingestd.messages import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    ControlCommand,
    Event,
    EventData,
    EventType,
    Priority,
    RequestEnvelope,
    routing_word,
)
from ingestd.transport.amqp.topology import REQUEST_KEYS

ATTEMPT: Final = "x-ingestd-attempt"
PARKED: Final = "x-ingestd-parked"
SET_BACK: Final = "x-ingestd-set-back"
REASON: Final = "x-ingestd-reason"
CODE: Final = "x-ingestd-code"
EXCHANGE: Final = "x-ingestd-exchange"
ROUTING_KEY: Final = "x-ingestd-routing-key"

MAX_ATTEMPT: Final = 1_000_000
MAX_STAMP: Final = 2**33
_MAX_HEADERS = 64
_FEW = 5
_MAX_HEADER_CHARS = 1000
_ROUTES = {"cc", "bcc"}
_BROKERS_OWN = ("x-death", "x-first-death", "x-last-death", "x-delivery-", "x-acquired-", "x-opt-")

Header = str | int | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One message as the broker gave it. `count` is how often it was given before and came back."""

    tag: int
    body: bytes
    exchange: str = ""
    routing_key: str = ""
    content_type: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    timestamp: datetime | None = None
    count: int = 0
    lifetime: timedelta | None = None
    """How long it was to be kept (the property `expiration`)."""
    left: int = 0
    """How many messages were in the queue behind it, where it was fetched."""
    redelivered: bool = False
    """Whether it was given before, to whomever."""
    headers: Mapping[str, Any]

    @classmethod
    def of(cls, message: DeliveredMessage) -> Delivery:
        properties = message.header.properties
        headers = properties.headers or {}
        return cls(
            tag=message.delivery_tag or 0,
            body=bytes(message.body),
            exchange=message.exchange or "",
            routing_key=message.routing_key or "",
            content_type=properties.content_type or None,
            message_id=properties.message_id or None,
            correlation_id=properties.correlation_id or None,
            reply_to=properties.reply_to or None,
            type=properties.message_type or None,
            timestamp=properties.timestamp,
            count=_number(headers.get("x-delivery-count"), lowest=0),
            lifetime=_lifetime(properties.expiration),
            left=getattr(message.delivery, "message_count", 0) or 0,
            redelivered=bool(getattr(message.delivery, "redelivered", False)),
            headers=headers,
        )

    @property
    def known_since(self) -> datetime | None:
        """When a worker first set it back."""
        stamp = _number(self.headers.get(SET_BACK), lowest=0, highest=MAX_STAMP)
        return datetime.fromtimestamp(stamp, UTC) if stamp else None

    @property
    def expires_at(self) -> datetime | None:
        """When it is too late to begin, by its properties; nobody knows without a time stamp."""
        if self.lifetime is None or self.timestamp is None or self.returning:
            return None
        stamp = self.timestamp
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)) + self.lifetime

    @property
    def attempt(self) -> int:
        return _number(self.headers.get(ATTEMPT), lowest=1)

    @property
    def returning(self) -> bool:
        """Whether a worker parked it, or put it back."""
        return bool(self.headers.get(PARKED))


def _lifetime(expiration: str | None) -> timedelta | None:
    """Milliseconds as text; RabbitMQ lets in nothing else, and at most a little over 49 days."""
    return timedelta(milliseconds=int(expiration)) if expiration and expiration.isdigit() else None


def _number(value: object, *, lowest: int, highest: int = MAX_ATTEMPT) -> int:
    known = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
    return int(value) if known else lowest  # type: ignore[call-overload]  # `known` says that it is an int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """Not a request, and nobody to be told: for the dead-letter queue."""

    error: IngestError


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """A request that names itself and is wrong: its sender is to be told."""

    error: IngestError
    name: str


def read(delivery: Delivery) -> RequestEnvelope | Invalid | Unreadable:
    """Read a request, or say in what way it is none. Raises nothing: whatever the body is, there is an answer."""
    try:
        envelope = messages.read_request(delivery.body, message_id=delivery.message_id or "")
    except RequestError as error:
        name = _name(delivery)
        return Invalid(error=error, name=name) if name else Unreadable(error=error)
    except RecursionError:
        return Unreadable(error=RequestError("the message is nested too deeply to be a request"))
    asked: dict[str, Any] = {}
    if delivery.expires_at is not None and envelope.data.expires_at is None:
        asked["expires_at"] = delivery.expires_at
    if "tenant" not in envelope.data.model_fields_set and (tenant := tenant_of(delivery)):
        asked["tenant"] = tenant
    return envelope.model_copy(update={"data": envelope.data.model_copy(update=asked)}) if asked else envelope


def priority_of(delivery: Delivery) -> Priority:
    """The priority that a request's routing key names, and with it its queue."""
    key = f"{delivery.routing_key}."
    return next((each for each, words in REQUEST_KEYS.items() if key.startswith(f"{words}.")), Priority.NORMAL)


def tenant_of(delivery: Delivery) -> str:
    """The tenant that a request's routing key names, empty where it names none: whose answers are waited for."""
    for words in REQUEST_KEYS.values():
        if delivery.routing_key.startswith(f"{words}."):
            return delivery.routing_key.removeprefix(f"{words}.").partition(".")[0][:200]
    return ""


def _name(delivery: Delivery) -> str:
    """What a request that is wrong calls itself; empty when it has no name that can be used."""
    if len(delivery.body) > MAX_BODY_BYTES:
        return ""
    try:
        raw = json.loads(delivery.body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(raw, dict):
        return ""
    bare = "specversion" not in raw and "data" not in raw  # as `read_request` has it: known by its message's id
    name = raw.get("id", delivery.message_id if bare else None)
    return name if isinstance(name, str) and len(name) <= 200 and name.isprintable() else ""


def identity(delivery: Delivery, envelope: RequestEnvelope | None) -> str:
    """The message id of a copy. Without one of its own, a bare request is known by it, so it must never change."""
    named = delivery.message_id or (envelope.id if envelope else _name(delivery))
    return named or hashlib.sha256(delivery.body).hexdigest()[:32]


def digest(delivery: Delivery, envelope: RequestEnvelope) -> str:
    """What tells this message from others with the same request, as far as its sender gave it something."""
    name = identity(delivery, envelope)
    named = f"{name}\n{delivery.timestamp}\n{delivery.correlation_id}\n{delivery.reply_to}\n"
    return hashlib.sha256(named.encode("utf-8", "replace") + delivery.body).hexdigest()


def parked(delivery: Delivery, envelope: RequestEnvelope | None) -> tuple[Message, str]:
    """Copy a request for the parking queue (or to be put back), with the routing key that brings it back."""
    headers = {**_copied(delivery.headers), ATTEMPT: delivery.attempt, PARKED: 1}
    return _copy(delivery, headers, _printable(identity(delivery, envelope))), _way_back(delivery, envelope)


def _way_back(delivery: Delivery, envelope: RequestEnvelope | None) -> str:
    """The key it came with, if the requests queue is bound to it; messages may be put into a queue directly."""
    if any(f"{delivery.routing_key}.".startswith(f"{words}.") for words in REQUEST_KEYS.values()):
        return delivery.routing_key
    return request_key(envelope.data.tenant if envelope else "default")


def request_key(tenant: str, priority: Priority = Priority.NORMAL) -> str:
    return f"{REQUEST_KEYS[priority]}.{routing_word(tenant)}"


def set_back(delivery: Delivery, envelope: RequestEnvelope) -> tuple[Message, str]:
    """Copy a request for the end of its queue, as it came, with the time when that was done first: whoever does it and
    dies leaves the broker two of one message.
    """
    headers = {SET_BACK: int(datetime.now(UTC).timestamp()), **_copied(delivery.headers)}
    message = _copy(delivery, headers, _printable(identity(delivery, envelope)))
    message.expiration = delivery.lifetime
    return message, _way_back(delivery, envelope)


def dead(delivery: Delivery, error: IngestError) -> Message:
    """Copy a message for the dead-letter queue, with the reason and with where it came from."""
    headers = {
        **_copied(delivery.headers),
        REASON: _printable(error.detail)[:500],
        CODE: error.code.value,
        EXCHANGE: _printable(delivery.exchange),
        ROUTING_KEY: _printable(delivery.routing_key),
    }
    return _copy(delivery, headers, identity(delivery, None))


def replayed(delivery: Delivery) -> Message:
    """Copy a message that was kept, as it was before: for whoever takes it, it is new."""
    ours = {REASON, CODE, EXCHANGE, ROUTING_KEY, PARKED, SET_BACK}
    headers = {name: value for name, value in _copied(delivery.headers).items() if name not in ours}
    return _copy(delivery, headers, _printable(identity(delivery, None)))


def _copy(delivery: Delivery, headers: Mapping[str, Header], message_id: str) -> Message:
    return Message(
        delivery.body,
        headers=dict(headers),
        content_type=delivery.content_type,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=message_id,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        type=delivery.type,
        timestamp=delivery.timestamp,
    )


def _copied(headers: Mapping[str, Any]) -> dict[str, Header]:
    """Simple headers of the sender's, as far as they are harmless and small: together they must fit into one frame."""
    kept: dict[str, Header] = {}
    for name, value in headers.items():
        if len(kept) == _MAX_HEADERS:
            break
        small = isinstance(value, int) or (isinstance(value, str) and len(value) <= _MAX_HEADER_CHARS)
        if small and name.lower() not in _ROUTES and not name.lower().startswith(_BROKERS_OWN):
            kept[name] = value
    return kept


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def parked_anew(record: RequestRecord) -> tuple[Message, str]:
    """A request that is in hand anew, for the parking queue: its parked copy went when it had its result."""
    message = request_message(record.envelope)
    message.headers = {ATTEMPT: record.attempt, PARKED: 1}
    message.reply_to, message.correlation_id = record.reply_to, record.correlation
    return message, request_key(record.envelope.data.tenant, record.envelope.data.priority)


def command_message(command: ControlCommand) -> Message:
    """A command to the workers."""
    return Message(
        command.model_dump_json(exclude_none=True, by_alias=True).encode(),
        content_type=CONTENT_TYPE,
        message_id=command.id,
        type=command.type,
        timestamp=command.time,
    )


def request_message(envelope: RequestEnvelope) -> Message:
    """A request as its sender publishes it. Raises `RequestError` when it is too large for the bus."""
    body = envelope.model_dump_json(exclude_none=True).encode()
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(
            f"the request has {len(body)} bytes; at most {MAX_BODY_BYTES} are read",
            code=Code.REQUEST_SCHEMA_INVALID,
        )
    return Message(
        body,
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=envelope.id,
        type=envelope.type,
        timestamp=envelope.time,
    )


def event_message(event: Event, *, correlation_id: str | None) -> Message:
    """An event or result as it is published. Its message id is the CloudEvent's: consumers know a repetition by it."""
    return Message(
        body_of(event),
        headers={"traceparent": event.traceparent} if event.traceparent else {},
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=event.id,
        correlation_id=correlation_id,
        type=event.type,
        timestamp=event.time,
    )


def body_of(event: Event) -> bytes:
    """An event in at most `MAX_BODY_BYTES`. Where it is longer, what stands in the package's own logs is left out, by
    and by: samples of warnings, which formats became which, what the links took, most violations, what a program said.
    """
    body = event.model_dump_json().encode()
    for lighter in (_without_samples, _without_conversions, _without_links, _with_few_violations):
        if len(body) > MAX_BODY_BYTES:
            event = event.model_copy(update={"data": lighter(event.data)})
            body = event.model_dump_json().encode()
    return body


def _without_samples(data: EventData) -> EventData:
    return data.model_copy(update={"warnings": [one.model_copy(update={"samples": []}) for one in data.warnings]})


def _without_conversions(data: EventData) -> EventData:
    return data.model_copy(
        update={"normalization": [one.model_copy(update={"made": []}) for one in data.normalization]}
    )


def _without_links(data: EventData) -> EventData:
    return data.model_copy(update={"timing": data.timing and data.timing.model_copy(update={"links": []})})


def _with_few_violations(data: EventData) -> EventData:
    error = data.error
    if error is None:
        return data
    left_out = error.violations_left_out + len(error.violations[_FEW:])
    few = {"violations": error.violations[:_FEW], "violations_left_out": left_out, "stderr_tail": ""}
    return data.model_copy(update={"error": error.model_copy(update=few)})


def progress_key(event: Event) -> str:
    """`<tenant>.<aggregate>.<event>`, the routing key among progress events."""
    return f"{routing_word(event.data.tenant)}.{event.kind.value}"


def in_progress(event: Event) -> bool:
    """Whether an event goes to those who watch progress; a refusal concerns them as well as those who wait for it."""
    return not event.kind.terminal or event.kind is EventType.REQUEST_REJECTED
