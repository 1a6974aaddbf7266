"""What is promised on the broker, as data."""

from __future__ import annotations

import pytest

from ingestd.config import AmqpSettings
from ingestd.transport.amqp.topology import Topology


@pytest.fixture
def topology() -> Topology:
    return Topology.of(AmqpSettings(park_seconds=0.5, delivery_limit=3))


def test_every_exchange_of_the_contract_is_there(topology: Topology) -> None:
    kinds = {exchange.name: exchange.kind.value for exchange in topology.exchanges}

    assert kinds == {
        "ingestd.requests": "topic",
        "ingestd.inflight": "fanout",
        "ingestd.control": "fanout",
        "ingestd.events": "topic",
        "ingestd.results": "topic",
        "ingestd.unrouted": "fanout",
        "ingestd.dlx": "fanout",
    }


def test_requests_are_bounded_in_deliveries_and_dead_lettered_at_least_once(topology: Topology) -> None:
    arguments = {queue.name: queue.arguments for queue in topology.queues}

    assert arguments["ingestd.requests"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-dead-letter-exchange": "ingestd.dlx",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_parked_requests_return_to_the_requests_exchange_when_their_time_is_over(topology: Topology) -> None:
    arguments = {queue.name: queue.arguments for queue in topology.queues}["ingestd.inflight"]

    assert arguments["x-message-ttl"] == 500
    assert arguments["x-dead-letter-exchange"] == "ingestd.requests"
    assert arguments["x-dead-letter-strategy"] == "at-least-once"


def test_every_queue_is_a_quorum_queue_and_is_bound(topology: Topology) -> None:
    assert {queue.arguments["x-queue-type"] for queue in topology.queues} == {"quorum"}
    assert {binding.queue for binding in topology.bindings} == {queue.name for queue in topology.queues}


def test_no_queue_that_people_look_into_loses_a_message_by_being_looked_at(topology: Topology) -> None:
    limits = {queue.name: int(queue.arguments["x-delivery-limit"]) for queue in topology.queues}

    assert min(limits["ingestd.dead"], limits["ingestd.unrouted"]) > 1_000_000


def test_a_result_that_nobody_has_bound_goes_to_the_alternate_exchange(topology: Topology) -> None:
    results = next(exchange for exchange in topology.exchanges if exchange.name == "ingestd.results")

    assert results.arguments == {"alternate-exchange": "ingestd.unrouted"}


def test_every_name_is_a_setting() -> None:
    names = ["requests", "inflight", "control", "events", "results", "unrouted", "dead_letter_exchange", "dead"]
    mine = Topology.of(AmqpSettings.model_validate({name: f"mine.{name}" for name in names}))

    said = {exchange.name for exchange in mine.exchanges} | {queue.name for queue in mine.queues}

    assert said == {f"mine.{name}" for name in [*names, "requests.high", "requests.low"]}
