"""Where events go."""

from __future__ import annotations

import pytest

from ingestd.config import AmqpSettings
from ingestd.messages import Event, EventData, EventType, Outcome, RequestState
from ingestd.transport.amqp.publisher import addresses


def goes_to(kind: EventType, outcome: Outcome | None) -> list[tuple[str, str, bool]]:
    event = Event(
        id="e",
        type=kind.full,
        subject="r",
        data=EventData(
            request_id="r",
            sequence=1,
            tenant="Acme",
            collection="Born digital",
            state=RequestState.RUNNING,
            outcome=outcome,
        ),
    )
    return [(each.exchange, each.key, each.kept) for each in addresses(event, AmqpSettings())]


@pytest.mark.parametrize(
    "kind", [kind for kind in EventType if not kind.terminal and kind is not EventType.BATCH_COMPLETED]
)
def test_progress_goes_to_events_alone_and_need_not_be_watched(kind: EventType) -> None:
    assert goes_to(kind, None) == [("ingestd.events", f"acme.{kind.value}", False)]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (EventType.AIP_STORED, Outcome.SUCCEEDED),
        (EventType.AIP_STORED, Outcome.SUCCEEDED_WITH_WARNINGS),
        (EventType.REQUEST_FAILED, Outcome.FAILED),
        (EventType.REQUEST_CANCELLED, Outcome.CANCELLED),
        (EventType.REQUEST_OUTCOME_UNKNOWN, Outcome.OUTCOME_UNKNOWN),
    ],
)
def test_an_end_goes_to_results_alone_and_must_reach_a_queue(kind: EventType, outcome: Outcome) -> None:
    assert goes_to(kind, outcome) == [("ingestd.results", f"acme.born-digital.{outcome.value}", True)]


def test_a_refusal_goes_to_both() -> None:
    assert goes_to(EventType.REQUEST_REJECTED, Outcome.REJECTED) == [
        ("ingestd.events", "acme.request.rejected", False),
        ("ingestd.results", "acme.born-digital.rejected", True),
    ]
