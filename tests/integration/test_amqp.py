"""Requests in, on a real RabbitMQ: every way a delivery can be settled, and what is left when something dies."""

from __future__ import annotations

import asyncio
import json

import aio_pika
import pytest
from structlog.testing import capture_logs

from ingestd.config import AmqpSettings
from ingestd.errors import Code, DependencyError, RequestError
from ingestd.ingest import Disposition
from ingestd.messages import Outcome
from ingestd.transport.amqp import client
from ingestd.transport.amqp.service import AmqpService
from tests.broker_tests import crashing, looking, names, request, serving, until_ready
from tests.fake_intake import FakeIntake
from tests.rabbit import RabbitNode

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(rabbit_url: str) -> AmqpSettings:
    return names(rabbit_url)


# --- the topology ----------------------------------------------------------------------------------------------------


async def test_the_topology_is_declared_twice_without_harm(settings: AmqpSettings) -> None:
    await client.declare(settings)
    await client.declare(settings)

    async with looking(settings) as look:
        for queue in (settings.requests, settings.inflight, settings.unrouted, settings.dead):
            assert await look.count(queue) == 0


async def test_a_queue_with_other_arguments_is_named_and_what_to_do_said(settings: AmqpSettings) -> None:
    await client.declare(settings)

    with pytest.raises(DependencyError) as caught:
        await client.declare(settings.model_copy(update={"park_seconds": 7.0}))

    assert caught.value.code is Code.DEPENDENCY_BROKER
    assert settings.inflight in caught.value.detail
    assert "x-message-ttl" in caught.value.detail
    assert "ingestd topology" in caught.value.remediation


async def test_a_service_that_may_not_declare_says_what_is_missing_and_works_once_it_is_there(
    settings: AmqpSettings,
) -> None:
    own = settings.model_copy(update={"declare": False})
    stop = asyncio.Event()
    service = AmqpService(FakeIntake(), own)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run(stop))
        async with asyncio.timeout(10):
            while service.failure is None:
                await asyncio.sleep(0.02)
        failure = service.failure
        await client.declare(settings)
        await until_ready(service)
        stop.set()

    assert settings.dead_letter_exchange in failure.detail
    assert "ingestd topology" in failure.remediation


# --- how a delivery is settled ----------------------------------------------------------------------------------------


async def test_a_new_request_is_journalled_parked_and_acknowledged(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(
            request(),
            message_id="m-1",
            correlation_id="c-1",
            reply_to="answers",
            content_type="application/json",
            headers={"x-ingestd-attempt": 4},
        )
        parked = await look.get(settings.inflight)

    taken = intake.taken[0]
    assert (taken.envelope.id, taken.returning, taken.attempt) == ("r-1", False, 4)
    assert (taken.reply_to, taken.correlation_id) == ("answers", "c-1")
    assert json.loads(parked.body) == request()
    assert (parked.headers["x-ingestd-attempt"], parked.headers["x-ingestd-parked"]) == (4, 1)
    assert (parked.message_id, parked.correlation_id, parked.reply_to) == ("m-1", "c-1", "answers")
    assert (parked.content_type, parked.routing_key) == ("application/json", "preservation.request.acme")
    assert parked.delivery_mode == 2


async def test_a_parked_request_returns_and_is_parked_anew_again_and_again(rabbit_url: str) -> None:
    settings = names(rabbit_url, park_seconds=0.4)
    intake = FakeIntake(slots=2)
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request(), message_id="m-1")
        async with asyncio.timeout(30):
            await intake.until(lambda: len(intake.taken) == 7)
        await intake.finish("r-1")
        async with asyncio.timeout(10):
            await intake.until(lambda: Disposition.DONE in intake.dispositions())
        await asyncio.sleep(0.8)
        left = [await look.count(queue) for queue in (settings.requests, settings.inflight, settings.dead)]

    assert intake.dispositions()[:7] == [Disposition.TAKEN, *[Disposition.IN_HAND] * 6]
    assert all(taken.returning for taken in intake.taken[1:])
    assert intake.dispositions().count(Disposition.DONE) == 1
    assert left == [0, 0, 0]


async def test_a_returning_request_waits_in_the_broker_while_no_slot_is_free(rabbit_url: str) -> None:
    settings = names(rabbit_url, park_seconds=0.3)
    intake = FakeIntake(slots=1)
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request())
        await look.until_count(settings.requests, 1)
        await asyncio.sleep(0.5)

        assert intake.dispositions() == [Disposition.TAKEN]

        await intake.finish("r-1")
        await look.until_count(settings.requests, 0)


async def test_no_more_is_taken_than_there_are_slots_and_the_rest_stays_in_the_broker(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=2)
    async with looking(settings) as look, serving(intake, settings):
        for number in range(5):
            await look.publish(request(f"r-{number}"))
        await look.until_count(settings.inflight, 2)
        await look.until_count(settings.requests, 3)
        await intake.finish("r-0")
        await look.until_count(settings.requests, 2)
        await asyncio.sleep(0.3)

        assert ["r-0"] == [taken.envelope.id for taken in intake.taken][:1]
        assert 3 == len({taken.envelope.id for taken in intake.taken})
        assert await look.count(settings.requests) == 2  # ready, none of them held by this worker


async def test_a_finished_request_that_comes_again_is_dropped(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request())
        await look.get(settings.inflight)
        await intake.finish("r-1")
        async with asyncio.timeout(10):
            await intake.until(lambda: len(intake.confirmed) == 2)
        await look.publish(request())
        async with asyncio.timeout(10):
            await intake.until(lambda: len(intake.taken) == 2)
        await look.until_count(settings.requests, 0)

        assert intake.dispositions() == [Disposition.TAKEN, Disposition.DONE]
        assert await look.count(settings.inflight) == 0


class Unconfirming(FakeIntake):
    """Nothing is ever confirmed; `patient`: it is waited for all the same."""

    def __init__(self, *, patient: bool) -> None:
        super().__init__()
        self.patient = patient

    async def published(self, request: str, *, within_seconds: float) -> bool:
        while self.patient:
            await asyncio.sleep(0.1)
        return False


async def test_a_message_whose_answer_is_not_confirmed_in_time_is_parked(settings: AmqpSettings) -> None:
    intake = Unconfirming(patient=False)
    async with looking(settings) as look, serving(intake, settings):
        await look.publish({"id": "r-1", "data": {}})
        parked = await look.get(settings.inflight)

    assert parked.headers["x-ingestd-parked"] == 1
    assert intake.refused[0].name == "r-1"


async def test_a_message_is_the_broker_s_until_its_answer_is_confirmed(settings: AmqpSettings) -> None:
    intake = Unconfirming(patient=True)
    async with looking(settings) as look:
        async with crashing(intake, settings):
            await look.publish({"id": "r-1", "data": {}})
            async with asyncio.timeout(10):
                await intake.until(lambda: bool(intake.refused))
            await look.until_count(settings.requests, 0)
        await look.until_count(settings.requests, 1)
        again = FakeIntake()
        async with serving(again, settings):
            await again.until(lambda: bool(again.refused))
            await look.until_count(settings.requests, 0)

    assert [again.refused[0].body] == [intake.refused[0].body]


async def test_a_message_that_is_delivered_again_says_so(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    intake.failures.append(OSError("not now"))
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request(), message_id="m-1")
        await look.get(settings.inflight)

    assert (True, False) == (intake.taken[0].redelivered, intake.taken[0].returning)


async def test_a_request_that_is_wrong_and_names_itself_is_told_so(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    body = request()
    del body["data"]["source"]
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(body, message_id="m-1")
        result = await look.get(settings.unrouted)
        left = [await look.count(queue) for queue in (settings.requests, settings.inflight, settings.dead)]

    event = json.loads(result.body)
    assert (event["data"]["outcome"], event["data"]["request_id"]) == ("rejected", "r-1")
    assert event["data"]["error"]["violations"][0]["path"] == "data.source"
    assert intake.refused[0].name == "r-1"
    assert left == [0, 0, 0]


async def test_a_request_that_ingest_refuses_is_told_so(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    intake.failures.append(RequestError("no such location", code=Code.REQUEST_UNKNOWN_LOCATION))
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request())
        result = await look.get(settings.unrouted)

    assert json.loads(result.body)["data"]["error"]["code"] == "request.unknown_location"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\x00", b"[1, 2]", b'"text"', b'{"data": {}}', b'{"id": "' + b"x" * 70_000 + b'"}'],
    ids=["empty", "cut", "binary", "list", "string", "nameless", "large"],
)
async def test_what_is_no_request_is_dead_lettered_with_the_reason(settings: AmqpSettings, body: bytes) -> None:
    async with looking(settings) as look, serving(FakeIntake(), settings):
        await look.publish(body, headers={"CC": ["nowhere"], "mine": "kept"}, user_id="guest", correlation_id="c-1")
        dead = await look.get(settings.dead)
        await look.until_count(settings.requests, 0)

    assert dead.body == body
    assert dead.headers["x-ingestd-reason"]
    assert dead.headers["x-ingestd-code"] == "request.schema_invalid"
    assert dead.headers["x-ingestd-exchange"] == settings.requests
    assert dead.headers["x-ingestd-routing-key"] == "preservation.request.acme"
    assert (dead.headers["mine"], dead.correlation_id) == ("kept", "c-1")


async def test_no_property_of_a_message_can_stop_the_service(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=9)
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(
            request("odd"),
            headers={"CC": ["nowhere"], "BCC": ["nowhere"], "x-ingestd-attempt": "many", "t": {"a": [1]}},
            user_id="guest",
            expiration=3600,
            priority=200,
        )
        await look.publish(request("even"))
        await look.until_count(settings.inflight, 2)
        parked = [await look.get(settings.inflight) for _ in range(2)]

    assert [json.loads(message.body)["id"] for message in parked] == ["odd", "even"]
    assert all(message.expiration is None for message in parked)


async def test_a_request_put_into_the_queue_directly_comes_back_from_parking(rabbit_url: str) -> None:
    settings = names(rabbit_url, park_seconds=0.3)
    intake = FakeIntake(slots=2)
    async with looking(settings) as look, serving(intake, settings):
        await look.channel.default_exchange.publish(
            aio_pika.Message(json.dumps(request()).encode(), delivery_mode=2), settings.requests
        )
        async with asyncio.timeout(10):
            await intake.until(lambda: len(intake.taken) == 3)

    assert intake.dispositions() == [Disposition.TAKEN, Disposition.IN_HAND, Disposition.IN_HAND]


async def test_a_failure_on_one_message_is_bounded_and_harms_no_other(rabbit_url: str) -> None:
    settings = names(rabbit_url, delivery_limit=1)
    intake = FakeIntake(slots=2)
    intake.failures = [OSError("disk on fire"), OSError("disk on fire")]
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request("bad"), message_id="bad")
        dead = await look.get(settings.dead, limit_seconds=20)
        await look.publish(request("good"))
        await look.get(settings.inflight)

    assert dead.message_id == "bad"
    assert "disk on fire" in str(dead.headers["x-ingestd-reason"])
    assert dead.headers["x-ingestd-code"] == "system.bug"
    assert [taken.envelope.id for taken in intake.taken] == ["good"]


async def test_a_message_whose_handling_failed_once_is_given_again(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    intake.failures = [OSError("busy")]
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request())
        await look.get(settings.inflight)

    assert intake.dispositions() == [Disposition.TAKEN]


# --- dying and stopping -----------------------------------------------------------------------------------------------


async def test_what_was_not_journalled_when_a_worker_died_is_given_to_the_next(settings: AmqpSettings) -> None:
    dying, next_ = FakeIntake(), FakeIntake()
    dying.hold.clear()
    async with looking(settings) as look:
        async with crashing(dying, settings):
            await look.publish(request())
            async with asyncio.timeout(10):
                await dying.entered.wait()
        async with serving(next_, settings):
            await look.get(settings.inflight)
            left = await look.count(settings.dead)

    assert dying.taken == []
    assert next_.dispositions() == [Disposition.TAKEN]
    assert left == 0


async def test_a_stop_while_a_message_is_handled_leaves_it_to_the_broker(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    intake.hold.clear()
    async with looking(settings) as look:
        async with serving(intake, settings):
            await look.publish(request())
            async with asyncio.timeout(10):
                await intake.entered.wait()
        await look.until_count(settings.requests, 1)
        message = await look.get(settings.requests)
        dead = await look.count(settings.dead)

    assert message.redelivered
    assert (intake.taken, dead) == ([], 0)


async def test_a_stop_puts_the_requests_in_hand_back_at_once_and_nothing_else(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=3)
    async with looking(settings) as look:
        async with serving(intake, settings):
            for name in ("ended", "in-hand"):
                await look.publish(request(name), message_id=name, reply_to="answers")
            await look.until_count(settings.inflight, 2)
            await intake.finish("ended")
            async with asyncio.timeout(10):
                await intake.until(lambda: len(intake.confirmed) == 3)
        back = await look.get(settings.requests)
        left = await look.count(settings.requests)

    assert (back.message_id, back.reply_to, back.headers["x-ingestd-parked"]) == ("in-hand", "answers", 1)
    assert left == 0


async def test_requests_are_put_back_only_when_nothing_works_on_them_any_more(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    drained = asyncio.Event()
    stop = asyncio.Event()
    service = AmqpService(intake, settings, drain_seconds=10)
    async with looking(settings) as look, asyncio.TaskGroup() as group:
        group.create_task(service.run(stop, drained))
        await until_ready(service)
        await look.publish(request())
        await look.until_count(settings.inflight, 1)
        stop.set()
        await asyncio.sleep(0.5)
        before = await look.count(settings.requests)
        await intake.finish("r-1", Outcome.FAILED)  # the work in hand is wound up, and has a last word
        drained.set()
        result = await look.get(settings.unrouted)

    assert before == 0
    assert json.loads(result.body)["data"]["outcome"] == "failed"


async def test_after_a_stop_nothing_more_is_taken(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look:
        async with serving(intake, settings):
            pass
        await look.publish(request())
        await asyncio.sleep(0.3)

        assert await look.count(settings.requests) == 1
        assert intake.taken == []


async def test_a_queue_deleted_under_the_service_is_declared_anew(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings) as service:
        await look.channel.queue_delete(settings.requests)
        await until_ready(service, ready=False)
        await until_ready(service)
        await look.publish(request())
        await look.get(settings.inflight)

    assert intake.dispositions() == [Disposition.TAKEN]


async def test_a_connection_closed_by_an_operator_is_opened_again(settings: AmqpSettings, rabbit: RabbitNode) -> None:
    intake = FakeIntake()
    async with serving(intake, settings) as service:
        with capture_logs() as lines:
            await asyncio.to_thread(rabbit.close_connections)
            async with asyncio.timeout(20):
                while not any(line["event"] == "broker_connected" for line in lines):
                    await asyncio.sleep(0.05)
        async with looking(settings) as look:
            await look.publish(request())
            await look.get(settings.inflight)

        assert service.failure is None
    assert "closed by the test" in next(line["reason"] for line in lines if line["event"] == "broker_lost")


async def test_nothing_is_taken_while_the_broker_is_blocked_and_all_goes_on_after(
    settings: AmqpSettings, rabbit: RabbitNode
) -> None:
    intake = FakeIntake()
    stop = asyncio.Event()
    await client.declare(settings)
    async with looking(settings) as look:
        await look.publish(request())
        await asyncio.to_thread(rabbit.block_publishers)
        try:
            service = AmqpService(intake, settings, drain_seconds=1)
            async with asyncio.TaskGroup() as group:
                group.create_task(service.run(stop))
                await asyncio.sleep(2)
                blocked = (service.ready(), list(intake.taken), await look.count(settings.requests))
                await asyncio.to_thread(rabbit.unblock_publishers)
                await until_ready(service)
                await look.get(settings.inflight)
                stop.set()
        finally:
            await asyncio.to_thread(rabbit.unblock_publishers)

    assert blocked == (False, [], 1)
    assert intake.dispositions() == [Disposition.TAKEN]


async def test_a_worker_is_not_ready_while_the_broker_takes_no_messages(
    settings: AmqpSettings, rabbit: RabbitNode
) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings) as service:
        try:
            await look.publish(request("r-1"))
            await look.get(settings.inflight)
            await asyncio.to_thread(rabbit.block_publishers)
            await intake.finish("r-1")  # the broker says that it is blocked to whoever publishes
            await until_ready(service, ready=False)
            why = service.failure
        finally:
            await asyncio.to_thread(rabbit.unblock_publishers)
        await until_ready(service)
        assert service.failure is None
    assert why is not None
    assert "blocked" in why.detail
