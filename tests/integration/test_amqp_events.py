"""Events and results out, on a real RabbitMQ, and the upstream's side; with the broker dying in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence

import aio_pika
import pytest
from aio_pika.abc import AbstractQueue

from ingestd.config import AmqpSettings
from ingestd.errors import Code, DependencyError, RequestError
from ingestd.ingest import Disposition
from ingestd.messages import Event, EventType, Outcome, RequestState, parse_request
from ingestd.transport.amqp import client
from tests.broker_tests import Looker, crashing, looking, names, request, serving, until_ready
from tests.fake_intake import FakeIntake
from tests.proxy import proxy
from tests.rabbit import RabbitNode

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(rabbit_url: str) -> AmqpSettings:
    return names(rabbit_url)


async def bound(look: Looker, exchange: str, key: str = "#") -> AbstractQueue:
    queue = await look.channel.declare_queue(exclusive=False, auto_delete=False, durable=True)
    await queue.bind(exchange, key)
    return queue


async def drain(look: Looker, queue: AbstractQueue, count: int) -> list[Event]:
    return [Event.model_validate_json((await look.get(queue.name)).body) for _ in range(count)]


async def accepted(intake: FakeIntake, look: Looker, *ids: str, **properties: object) -> None:
    for name in ids:
        await look.publish(request(name), **properties)  # type: ignore[arg-type]  # AMQP properties
    async with asyncio.timeout(15):
        await intake.until(lambda: {taken.envelope.id for taken in intake.taken} >= set(ids))


# --- the outbox ------------------------------------------------------------------------------------------------------


async def test_events_of_a_request_come_in_order_and_are_confirmed_only_then(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=9)
    await client.declare(settings)
    async with looking(settings) as look:
        queue = await bound(look, settings.events)
        async with serving(intake, settings):
            await accepted(intake, look, "a", "b", "c")
            for _ in range(40):
                for name in ("a", "b", "c"):
                    await intake.say(name, EventType.LINK_COMPLETED, RequestState.RUNNING)
            async with asyncio.timeout(15):
                await intake.until(lambda: len(intake.confirmed) == 123)
            events = await drain(look, queue, 123)

    for name in ("a", "b", "c"):
        assert [event.data.sequence for event in events if event.subject == name] == list(range(1, 42))
    assert sorted(intake.confirmed) == list(range(1, 124))


async def test_an_event_is_a_persistent_cloudevent_with_its_own_id(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    await client.declare(settings)
    async with looking(settings) as look:
        queue = await bound(look, settings.events, "acme.request.accepted")
        async with serving(intake, settings):
            await look.publish(request(), correlation_id="c-1")
            message = await look.get(queue.name)

    body = json.loads(message.body)
    assert (message.content_type, message.delivery_mode) == ("application/cloudevents+json", 2)
    assert (message.message_id, message.type) == (body["id"], body["type"])
    assert message.correlation_id == "c-1"
    assert body["type"] == "org.ingestd.request.accepted.v1"


async def test_events_that_nobody_watches_are_confirmed_and_results_that_nobody_awaits_are_kept(
    settings: AmqpSettings,
) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings):
        await accepted(intake, look, "r-1")
        await intake.finish("r-1")
        async with asyncio.timeout(10):
            await intake.until(lambda: sorted(intake.confirmed) == [1, 2])
        kept = await look.get(settings.unrouted)

    assert kept.routing_key == "acme.books.succeeded"


async def test_a_result_that_somebody_awaits_goes_there_and_nowhere_else(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=2)
    await client.declare(settings)
    async with looking(settings) as look:
        succeeded = await bound(look, settings.results, "acme.*.succeeded")
        failed = await bound(look, settings.results, "#.failed")
        progress = await bound(look, settings.events)
        async with serving(intake, settings):
            await accepted(intake, look, "a", "b")
            await intake.finish("a")
            await intake.finish("b", Outcome.FAILED)
            ends = await drain(look, succeeded, 1) + await drain(look, failed, 1)
            began = await drain(look, progress, 2)
            unrouted = await look.count(settings.unrouted)

    assert [event.subject for event in ends] == ["a", "b"]
    assert {event.kind for event in began} == {EventType.REQUEST_ACCEPTED}
    assert unrouted == 0


async def test_a_refusal_is_told_to_those_who_watch_and_to_those_who_wait(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    await client.declare(settings)
    body = request()
    body["data"]["source"] = {}
    async with looking(settings) as look:
        queues = [
            await bound(look, settings.events, "*.request.rejected"),
            await bound(look, settings.results, "*.*.rejected"),
        ]
        async with serving(intake, settings):
            await look.publish(body)
            events = [(await drain(look, queue, 1))[0] for queue in queues]

    assert events[0] == events[1]
    assert events[0].data.outcome is Outcome.REJECTED


async def test_a_result_is_also_sent_where_its_request_asked_for_it(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings):
        answers = await look.channel.declare_queue(exclusive=True)
        await accepted(intake, look, "r-1", reply_to=answers.name, correlation_id="c-7")
        await intake.finish("r-1")
        answer = await look.get(answers.name)
        kept = await look.get(settings.unrouted)

    assert (answer.correlation_id, answer.message_id) == ("c-7", kept.message_id)
    assert Event.model_validate_json(answer.body).data.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("where", ["gone.away", "amq.rabbitmq.reply-to.nobody", "OWN"])
async def test_an_answer_that_cannot_be_sent_holds_nothing_up(settings: AmqpSettings, where: str) -> None:
    intake = FakeIntake()
    reply_to = settings.inflight if where == "OWN" else where
    async with looking(settings) as look, serving(intake, settings):
        await accepted(intake, look, "r-1", reply_to=reply_to)
        await intake.finish("r-1")
        async with asyncio.timeout(10):
            await intake.until(lambda: sorted(intake.confirmed) == [1, 2])

        assert await look.count(settings.inflight) == 1  # the parked request alone


async def test_a_subscriber_whose_queue_is_full_holds_up_its_request_alone_and_loses_nothing(
    settings: AmqpSettings,
) -> None:
    intake = FakeIntake(slots=3)
    await client.declare(settings)
    async with looking(settings) as look:
        full = await look.channel.declare_queue(
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"}, durable=True
        )
        await full.bind(settings.results, "*.*.failed")
        async with serving(intake, settings):
            await accepted(intake, look, "a", "b", "c")
            await intake.finish("a", Outcome.FAILED)
            await look.until_count(full.name, 1)
            await intake.finish("b", Outcome.FAILED)
            await intake.finish("c", Outcome.SUCCEEDED)
            await look.until_count(settings.unrouted, 1)
            waiting = len(intake.confirmed)
            first = await look.get(full.name)
            second = await look.get(full.name)

    assert waiting == 5
    assert [json.loads(message.body)["subject"] for message in (first, second)] == ["a", "b"]


async def test_a_stop_empties_the_outbox(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=2)
    async with looking(settings) as look:
        async with serving(intake, settings):
            await accepted(intake, look, "r-1")
            for _ in range(250):
                await intake.say("r-1", EventType.LINK_COMPLETED, RequestState.RUNNING)
            await intake.finish("r-1")
        kept = await look.get(settings.unrouted)

    assert json.loads(kept.body)["data"]["sequence"] == 252
    assert len(intake.confirmed) == 252


class Forgetful(FakeIntake):
    """Dies, in a way, between the broker's confirm and its own mark."""

    async def confirm(self, items: Sequence[int]) -> None:
        raise OSError("the disk is gone")


async def test_what_was_published_and_not_marked_is_published_again_with_the_same_id(settings: AmqpSettings) -> None:
    intake = Forgetful()
    await client.declare(settings)
    async with looking(settings) as look:
        queue = await bound(look, settings.events)
        async with crashing(intake, settings):
            await look.publish(request())
            messages = [await look.get(queue.name) for _ in range(3)]

    assert len({message.message_id for message in messages}) == 1
    assert len({json.loads(message.body)["id"] for message in messages}) == 1


# --- the broker dies --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_nothing_is_lost_when_the_broker_dies_in_the_middle(
    settings: AmqpSettings, rabbit: RabbitNode, how: str
) -> None:
    intake = FakeIntake(slots=3)
    await client.declare(settings)
    async with looking(settings) as look:
        await bound(look, settings.events)
        for name in ("a", "b", "c", "d", "e"):
            await look.publish(request(name))
    async with serving(intake, settings) as service:
        async with asyncio.timeout(15):
            await intake.until(lambda: len(intake.taken) == 3)
        # RabbitMQ writes the registration of a new quorum queue with a delay; killed within it, it never elects a leader
        # for that queue again. That is the broker's own and is not what is tested.
        await asyncio.sleep(3)
        await asyncio.to_thread(rabbit.kill if how == "kill" else rabbit.stop)
        await until_ready(service, ready=False)
        for name in ("a", "b"):
            await intake.finish(name)  # while no broker is there
        await asyncio.to_thread(rabbit.start)
        await until_ready(service, limit_seconds=60)
        async with asyncio.timeout(30):
            await intake.until(lambda: {taken.envelope.id for taken in intake.taken} == set("abcde"))
            for name in ("c", "d", "e"):
                await intake.finish(name)
            await intake.until(lambda: len(set(intake.confirmed)) == 10)
        async with looking(settings) as look:
            results = [json.loads((await look.get(settings.unrouted)).body)["subject"] for _ in range(5)]
            left = [await look.count(queue) for queue in (settings.requests, settings.dead)]

    assert sorted(results) == list("abcde")
    assert left == [0, 0]


async def test_a_network_that_is_cut_again_and_again_loses_nothing_and_takes_nothing_twice(
    settings: AmqpSettings, rabbit: RabbitNode
) -> None:
    intake = FakeIntake(slots=100)
    async with proxy(rabbit.port) as between, looking(settings) as look:
        far = names(rabbit.url_for(between.port)).model_copy(
            update={**settings.model_dump(exclude={"url"}), "url": names(rabbit.url_for(between.port)).url}
        )
        async with serving(intake, far) as service:
            for number in range(30):
                await look.publish(request(f"r-{number}"))
                if number % 10 == 5:
                    between.cut()
            async with asyncio.timeout(30):
                await intake.until(lambda: len(intake.in_hand()) == 30)
            await until_ready(service)
            for number in range(30):
                await intake.finish(f"r-{number}")
                if number % 10 == 5:
                    between.cut()
            async with asyncio.timeout(30):
                await intake.until(lambda: len(set(intake.confirmed)) == 60)
            ids = set()
            while await look.count(settings.unrouted):
                ids.add(json.loads((await look.get(settings.unrouted)).body)["subject"])
            dead = await look.count(settings.dead)

    assert ids == {f"r-{number}" for number in range(30)}
    assert intake.dispositions().count(Disposition.TAKEN) == 30
    assert dead == 0


# --- the upstream's side ----------------------------------------------------------------------------------------------


async def test_a_request_is_submitted_and_followed_to_its_end(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=3)
    ready = asyncio.Event()

    async def followed() -> list[EventType]:
        async with contextlib.aclosing(client.follow(settings, "r-1", ready, tenant="acme")) as events:
            return [event.kind async for event in events]

    async with serving(intake, settings), asyncio.TaskGroup() as group:
        following = group.create_task(followed())
        await asyncio.wait_for(ready.wait(), 10)
        for name in ("other", "r-1"):
            await client.submit(settings, parse_request(request(name)), "acme")
        async with asyncio.timeout(10):
            await intake.until(lambda: len(intake.taken) == 2)
        await intake.say("r-1", EventType.REQUEST_STARTED, RequestState.RUNNING)
        await intake.finish("other")
        await intake.finish("r-1")

    assert following.result() == [EventType.REQUEST_ACCEPTED, EventType.REQUEST_STARTED, EventType.AIP_STORED]


async def test_a_refusal_is_followed_once(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    intake.failures.append(RequestError("no"))
    ready = asyncio.Event()

    async def watched() -> list[str]:
        found = []
        async with contextlib.aclosing(client.watch(settings, ["#"], ready)) as events:
            async for event in events:
                found.append(f"{event.subject} {event.kind}")
                if event.subject == "last":
                    break
        return found

    async with serving(intake, settings), asyncio.TaskGroup() as group:
        watching = group.create_task(watched())
        await asyncio.wait_for(ready.wait(), 10)
        await client.submit(settings, parse_request(request("refused")), "acme")
        await client.submit(settings, parse_request(request("last")), "acme")

    assert watching.result() == ["refused request.rejected", "last request.accepted"]


async def test_a_watcher_sees_only_what_it_asked_for_and_passes_over_what_is_no_event(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=2)
    ready = asyncio.Event()

    async def first_result() -> Event:
        async with contextlib.aclosing(client.watch(settings, ["*.*.failed"], ready)) as events:
            return await anext(events)

    async with looking(settings) as look, serving(intake, settings), asyncio.TaskGroup() as group:
        watching = group.create_task(first_result())
        await asyncio.wait_for(ready.wait(), 10)
        results = await look.channel.get_exchange(settings.results, ensure=False)
        for junk in (b"", b"[]", b'{"id": "x", "type": "somebody.elses"}'):
            await results.publish(aio_pika.Message(junk), "acme.books.failed")
        await accepted(intake, look, "a", "b")
        await intake.finish("a")
        await intake.finish("b", Outcome.FAILED)

    assert watching.result().subject == "b"


async def test_a_request_submitted_without_a_topology_fails_with_what_to_do(settings: AmqpSettings) -> None:
    with pytest.raises(DependencyError) as caught:
        await client.submit(settings, parse_request(request()), "acme")

    assert caught.value.code is Code.DEPENDENCY_BROKER
    assert settings.requests in caught.value.detail
    assert "ingestd topology" in caught.value.remediation


async def test_a_request_that_no_queue_is_bound_for_is_not_lost_in_silence(settings: AmqpSettings) -> None:
    await client.declare(settings)
    async with looking(settings) as look:
        await look.channel.queue_delete(settings.requests)

    with pytest.raises(DependencyError, match="nothing is bound"):
        await client.submit(settings, parse_request(request()), "acme")


async def test_a_follower_without_a_topology_fails_with_what_to_do(settings: AmqpSettings) -> None:
    with pytest.raises(DependencyError, match=settings.events):
        async with contextlib.aclosing(client.follow(settings, "r-1", asyncio.Event())) as events:
            await anext(events)


async def test_a_follower_whose_connection_is_cut_is_told_so(settings: AmqpSettings, rabbit: RabbitNode) -> None:
    await client.declare(settings)
    ready = asyncio.Event()

    async def follow(url: str) -> None:
        own = settings.model_copy(update={"url": names(url).url})
        async with contextlib.aclosing(client.follow(own, "r-1", ready)) as events:
            with pytest.raises(DependencyError):
                await anext(events)

    async with proxy(rabbit.port) as between, asyncio.TaskGroup() as group:
        group.create_task(follow(rabbit.url_for(between.port)))
        await asyncio.wait_for(ready.wait(), 10)
        between.cut()


async def test_wrong_credentials_are_said_without_being_shown(settings: AmqpSettings, rabbit: RabbitNode) -> None:
    wrong = names(f"amqp://guest:s3cr%40t@127.0.0.1:{rabbit.port}/")

    with pytest.raises(DependencyError) as caught:
        await client.declare(wrong)

    assert "password" in caught.value.remediation
    assert "s3cr" not in f"{caught.value!r}{caught.value.__cause__!r}"


async def test_a_virtual_host_that_does_not_exist_is_said(rabbit: RabbitNode) -> None:
    with pytest.raises(DependencyError, match="nowhere") as caught:
        await client.declare(names(rabbit.url_for(rabbit.port, "nowhere")))

    assert "virtual host" in caught.value.remediation
