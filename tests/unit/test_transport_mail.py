"""Messages as they come and go, without a broker."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aio_pika import DeliveryMode, Message
from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from ingestd.errors import Code, ContentError, RequestError, Violation
from ingestd.messages import (
    MAX_BODY_BYTES,
    ErrorData,
    Event,
    EventData,
    EventType,
    LinkData,
    NormalizationData,
    NormalizedData,
    Outcome,
    RequestEnvelope,
    RequestState,
    TimingData,
    WarningData,
    parse_request,
)
from ingestd.transport.amqp import mail
from ingestd.transport.amqp.mail import Delivery, Invalid, Unreadable

BARE = {"source": {"location": "/srv/a.zip"}, "tenant": "Acme Ltd"}
REQUEST = {"specversion": "1.0", "id": "r-1", "source": "urn:repo:acme", "data": BARE}


def delivery(body: object = REQUEST, **properties: Any) -> Delivery:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(tag=1, body=data, **{"headers": {}, "routing_key": "preservation.request.acme"} | properties)


def arriving(message: Message, *, key: str = "") -> Delivery:
    """A message of ours as another worker sees it."""
    return Delivery.of(
        DeliveredMessage(
            delivery=Basic.Deliver(delivery_tag=7, exchange="x", routing_key=key, consumer_tag="c"),
            header=ContentHeader(body_size=len(message.body), properties=message.properties),
            body=message.body,
            channel=None,  # type: ignore[arg-type]  # no channel takes part in reading
        )
    )


def test_a_cloudevent_is_read() -> None:
    reading = mail.read(delivery())

    assert isinstance(reading, RequestEnvelope)
    assert (reading.id, reading.data.tenant) == ("r-1", "Acme Ltd")


def test_a_bare_request_is_known_by_its_message_id() -> None:
    reading = mail.read(delivery(BARE, message_id="m-1"))

    assert isinstance(reading, RequestEnvelope)
    assert reading.id == "m-1"


def test_a_bare_request_without_a_message_id_keeps_its_name_through_parking() -> None:
    first = delivery(BARE)
    envelope = mail.read(first)
    assert isinstance(envelope, RequestEnvelope)

    message, key = mail.parked(first, envelope)
    again = mail.read(arriving(message, key=key))

    assert isinstance(again, RequestEnvelope)
    assert again.id == envelope.id


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"null",
        b"[1]",
        b'"text"',
        b"[" * 60_000,
        b'{"data": {}}',
        b'{"id": 5, "data": {}}',
        b'{"id": "", "data": {}}',
        b'{"id": "a\\ud800", "data": {}}',
        b'{"id": "' + b"x" * MAX_BODY_BYTES + b'"}',
    ],
)
def test_what_is_no_request_and_names_nobody_is_unreadable(body: bytes) -> None:
    reading = mail.read(delivery(body, message_id="m-1"))

    assert isinstance(reading, Unreadable)
    assert reading.error.code is Code.REQUEST_SCHEMA_INVALID
    assert reading.error.detail


@pytest.mark.parametrize(
    ("body", "message_id"),
    [
        ({"specversion": "1.0", "id": "r-1", "source": "urn:a", "data": {}}, None),
        ({"specversion": "9", "id": "r-1", "source": "urn:a", "data": BARE}, None),
        ({"tenant": "acme"}, "m-1"),
    ],
)
def test_what_names_itself_and_is_wrong_is_invalid_with_every_violation(body: object, message_id: str | None) -> None:
    reading = mail.read(delivery(body, message_id=message_id))

    assert isinstance(reading, Invalid)
    assert reading.error.violations


def test_a_message_that_is_set_back_is_known_for_the_same_and_says_since_when() -> None:
    came = delivery(correlation_id="c-1", timestamp=datetime(2026, 11, 1, tzinfo=UTC))
    envelope = mail.read(came)
    assert isinstance(envelope, RequestEnvelope)
    once = arriving(mail.set_back(came, envelope)[0])
    twice = arriving(mail.set_back(replace(once, headers={**once.headers, mail.SET_BACK: 1_700_000_000}), envelope)[0])

    assert came.known_since is None
    assert once.known_since is not None
    assert abs(once.known_since - datetime.now(UTC)) < timedelta(minutes=1)
    assert twice.known_since == datetime.fromtimestamp(1_700_000_000, UTC)
    assert mail.digest(came, envelope) == mail.digest(once, envelope) == mail.digest(twice, envelope)
    assert mail.digest(came, envelope) != mail.digest(replace(came, correlation_id="c-2"), envelope)


@pytest.mark.parametrize("depth", [50, 200, 500, 900, 2000, 10_000])
def test_a_deeply_nested_request_gets_an_answer(depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"specversion":"1.0","id":"r","source":"s","data":{{"source":{{"location":"/a"}},"client_context":{nested}}}}}'

    assert isinstance(mail.read(delivery(body.encode())), RequestEnvelope | Invalid | Unreadable)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["id", "source", "data", "specversion", "location"]) | st.text(), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_body_is_there_is_an_answer(body: bytes) -> None:
    assert isinstance(mail.read(delivery(body)), RequestEnvelope | Invalid | Unreadable)


@pytest.mark.parametrize("value", [None, "3", 0, -1, True, 2**40, [1], 1.5])
def test_an_attempt_that_is_no_number_is_the_first(value: object) -> None:
    assert delivery(headers={mail.ATTEMPT: value}).attempt == 1


def test_a_parked_copy_carries_all_that_the_next_worker_needs() -> None:
    sent = delivery(
        message_id="m-1",
        correlation_id="c-1",
        reply_to="answers",
        content_type="application/json",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        headers={mail.ATTEMPT: 3, "traceparent": "00-ab"},
    )
    message, key = mail.parked(sent, parse_request(REQUEST))
    back = arriving(message, key=key)

    expected = replace(sent, tag=7, exchange="x", headers=back.headers)

    assert expected == back
    assert (back.attempt, back.returning, back.headers["traceparent"]) == (3, True, "00-ab")
    assert message.delivery_mode is DeliveryMode.PERSISTENT


def test_a_copy_carries_nothing_that_routes_expires_or_that_the_broker_writes() -> None:
    hostile = {
        "CC": ["other.queue"],
        "BCC": "other.queue",
        "cc": "other",
        "x-death": [{"count": 3}],
        "x-first-death-queue": "a",
        "x-delivery-count": 3,
        "x-last-death-reason": "expired",
        "x-acquired-count": 1,
        "table": {"a": 1},
        "long": "x" * 5000,
    }
    message, _ = mail.parked(delivery(headers=hostile), None)

    assert message.headers == {mail.ATTEMPT: 1, mail.PARKED: 1}
    assert message.expiration is None
    assert message.user_id is None


def test_headers_of_a_copy_are_bounded() -> None:
    message, _ = mail.parked(delivery(headers={f"h{number}": number for number in range(10_000)}), None)

    assert len(message.headers) < 100


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("preservation.request.acme", "preservation.request.acme"),
        ("preservation.request", "preservation.request"),
        ("preservation.requests", "preservation.request.acme-ltd"),
        ("ingestd.requests", "preservation.request.acme-ltd"),
        ("", "preservation.request.acme-ltd"),
    ],
)
def test_a_parked_copy_has_a_key_that_brings_it_back(key: str, expected: str) -> None:
    _, way_back = mail.parked(delivery(routing_key=key), parse_request(REQUEST))

    assert expected == way_back


def test_a_dead_letter_is_known_by_its_message_s_id_or_else_by_its_request_s() -> None:
    assert "m" == mail.identity(delivery(message_id="m"), None)
    assert REQUEST["id"] == mail.identity(delivery(), None)
    assert 32 == len(mail.identity(delivery(b"no JSON"), None))


def test_a_dead_letter_says_why_and_where_it_came_from() -> None:
    message = mail.dead(
        delivery(b"{", exchange="ingestd.requests", message_id="m", headers={"kept": "yes"}),
        RequestError("the message is not JSON"),
    )

    assert message.headers == {
        "kept": "yes",
        mail.REASON: "the message is not JSON",
        mail.CODE: "request.schema_invalid",
        mail.EXCHANGE: "ingestd.requests",
        mail.ROUTING_KEY: "preservation.request.acme",
    }
    assert (message.body, message.message_id) == (b"{", "m")


def test_a_delivery_mode_that_does_not_exist_does_no_harm() -> None:
    properties = Basic.Properties()
    properties.delivery_mode = 9
    header = ContentHeader(body_size=1, properties=properties)
    read = Delivery.of(
        DeliveredMessage(
            delivery=Basic.Deliver(delivery_tag=1, exchange="", routing_key="q", consumer_tag="c"),
            header=header,
            body=b"x",
            channel=None,  # type: ignore[arg-type]  # no channel takes part in reading
        )
    )

    assert (read.body, dict(read.headers)) == (b"x", {})


def test_a_request_too_large_for_the_bus_is_refused_before_it_is_sent() -> None:
    envelope = parse_request(REQUEST | {"data": BARE | {"processing": {"x": "y" * MAX_BODY_BYTES}}})

    with pytest.raises(RequestError, match="at most 65536"):
        mail.request_message(envelope)


def test_a_request_is_read_as_it_was_sent() -> None:
    envelope = parse_request(REQUEST | {"time": "2026-01-02T03:04:05Z", "traceparent": "00-ab"})

    assert mail.read(arriving(mail.request_message(envelope))) == envelope


def event(kind: EventType, outcome: Outcome | None = None) -> Event:
    return Event(
        id="e-1",
        type=kind.full,
        subject="r-1",
        traceparent="00-ab",
        data=EventData(
            request_id="r-1",
            sequence=1,
            tenant="Acme Ltd",
            collection="Born Digital",
            state=RequestState.RUNNING,
            outcome=outcome,
        ),
    )


def test_an_event_is_known_by_its_message_id_and_type() -> None:
    message = mail.event_message(event(EventType.LINK_FAILED), correlation_id="c-1")

    assert Event.model_validate_json(message.body) == event(EventType.LINK_FAILED).model_copy(
        update={"time": Event.model_validate_json(message.body).time}
    )
    assert (message.message_id, message.correlation_id, message.type, message.content_type) == (
        "e-1",
        "c-1",
        "org.ingestd.link.failed.v1",
        "application/cloudevents+json",
    )
    assert (message.delivery_mode, message.headers) == (DeliveryMode.PERSISTENT, {"traceparent": "00-ab"})


def test_an_event_with_everything_at_its_limit_fits_into_a_message_and_keeps_its_counts() -> None:
    long = "ä" * 300
    violations = tuple(Violation(path=f"{long}{number}", rule="r", actual=long) for number in range(150))
    made = NormalizedData(format=long, into=long, command=long, files=1)
    links = [LinkData(id=str(uuid.uuid4()), name=long, group="g", execute="e") for _ in range(60)]
    data = EventData(
        request_id="r-1",
        sequence=1,
        state=RequestState.FAILED,
        client_context={"theirs": "x" * 4000},
        warnings=[WarningData(code=f"c.{number}", count=7, samples=[long] * 3) for number in range(60)],
        normalization=[NormalizationData(purpose="access", outcomes={"normalized": 9}, made=[made] * 20)] * 3,
        error=ErrorData.of(ContentError("wrong", code=Code.CONTENT_STRUCTURE_INVALID, violations=violations)),
        timing=TimingData(accepted_at=datetime.now(UTC), seconds=3, links=links),
    )
    whole = Event(type=EventType.LINK_FAILED.full, subject="r-1", data=data)
    assert len(whole.model_dump_json().encode()) > 2 * MAX_BODY_BYTES

    body = mail.event_message(whole, correlation_id=None).body

    told = Event.model_validate_json(body).data
    assert len(body) <= MAX_BODY_BYTES
    assert [7] * 60 == [warning.count for warning in told.warnings]
    assert {"normalized": 9} == told.normalization[0].outcomes
    assert told.error is not None
    assert 150 == len(told.error.violations) + told.error.violations_left_out
    assert told.error.violations
    assert body == mail.event_message(whole, correlation_id=None).body


def test_progress_has_a_routing_key_of_tenant_aggregate_and_event() -> None:
    assert mail.progress_key(event(EventType.REQUEST_REJECTED, Outcome.REJECTED)) == "acme-ltd.request.rejected"


@pytest.mark.parametrize(
    ("key", "said", "tenant"),
    [
        ("preservation.request.acme", {}, "acme"),
        ("preservation.high.acme.more", {}, "acme"),
        ("preservation.request.acme", {"tenant": "Other"}, "Other"),
        ("preservation.request.acme", {"tenant": "default"}, "default"),
        ("preservation.request", {}, "default"),
        ("ingestd.requests", {}, "default"),
    ],
)
def test_a_request_without_tenant_is_that_of_its_routing_key(key: str, said: dict[str, str], tenant: str) -> None:
    asked = {**REQUEST, "data": {"source": {"location": "/srv/a.zip"}, **said}}
    reading = mail.read(delivery(asked, routing_key=key))

    assert isinstance(reading, RequestEnvelope)
    assert tenant == reading.data.tenant
