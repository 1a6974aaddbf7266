"""`ingestd serve` as a process, spoken to over AMQP and in no other way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import SMALL_FILES, damaged_since, many_files, small_transfer
from tests.acceptance.program import Program, Run, running, wait_until
from tests.acceptance.upstream import Message, Upstream, hold_against_contract, hold_order, upstream
from tests.rabbit import RabbitNode, free_ports

pytestmark = [pytest.mark.broker, pytest.mark.tool]

PASSWORD = "not-to-be-told"
SHUTDOWN_SECONDS = 20
DONE = {"succeeded", "succeeded_with_warnings"}


TOPOLOGY = {
    "REQUESTS": "requests",
    "INFLIGHT": "inflight",
    "CONTROL": "control",
    "EVENTS": "events",
    "RESULTS": "results",
    "UNROUTED": "unrouted",
    "DEAD_LETTER_EXCHANGE": "dlx",
    "DEAD": "dead",
}


class Service:
    """A data folder, exchanges and queues, and a port, with or without `ingestd serve` at work on them."""

    def __init__(self, folder: Path, url: str, *, topology: str = "ingestd", **settings: object) -> None:
        self.url = url
        self.topology = topology
        self.folder = folder
        self.sources = folder / "sources"
        self.aips = folder / "aips"
        self.log = folder / "serve.log"
        self.sources.mkdir()
        (self.port,) = free_ports(1)
        self.program = Program(
            folder,
            AMQP__URL=url,
            AMQP__RECONNECT_MAX_SECONDS=1,
            SOURCES__ROOTS=json.dumps([str(self.sources)]),
            LOCATIONS=json.dumps({"primary": self.aips.as_uri()}),
            HTTP_PORT=self.port,
            SHUTDOWN_SECONDS=SHUTDOWN_SECONDS,
            CONCURRENT_PACKAGES=2,
            **{f"AMQP__{name}": f"{topology}.{word}" for name, word in TOPOLOGY.items()},
            **settings,
        )

    @contextlib.contextmanager
    def serving(self, *, ready: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        with running(self.program, "serve", log=self.log) as process:
            if ready:
                wait_until(lambda: self.get("/readyz")[0] == 200, "the service to be ready", every=0.05)
            yield process

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def hold(self, messages: list[Message]) -> None:
        hold_against_contract(messages, never=[PASSWORD], work=str(self.program.data_dir))


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    """Give the URL of a vhost of these tests' own, with a password that must not be told."""
    rabbit.start()
    rabbit.control("add_vhost", "acceptance")
    rabbit.control("add_user", "worker", PASSWORD)
    rabbit.control("set_permissions", "-p", "acceptance", "worker", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "acceptance").replace("guest:guest", f"worker:{PASSWORD}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Service]:
    """Give a service that is at work for the tests of what it answers."""
    made = Service(tmp_path_factory.mktemp("service"), url)
    with made.serving():
        yield made
    said = made.log.read_text(encoding="utf-8")
    assert PASSWORD not in said
    assert [line for line in said.splitlines() if json.loads(line)["level"] in {"error", "critical"}] == []


@pytest.fixture
async def acme(service: Service) -> AsyncIterator[Upstream]:
    """Give an upstream of that service; all that it read is held against the contract in the end."""
    async with upstream(service.url) as opened:
        yield opened
        service.hold(opened.messages)


def source_of(service: Service, name: str | None = None) -> Path:
    return small_transfer(service.sources / (name or f"transfer {uuid.uuid4().hex[:6]}"))


def asking(source: Path, **more: Any) -> dict[str, Any]:
    return {"source": {"location": str(source)}, "tenant": "acme", "collection": "born-digital", **more}


async def command(service: Service, *arguments: object) -> Run:
    return await asyncio.to_thread(service.program, *arguments)


# --- requests that are taken


async def test_a_request_becomes_an_aip_and_its_way_is_told(service: Service, acme: Upstream, tmp_path: Path) -> None:
    source = source_of(service)
    context = {"ticket": 42, "words": "é"}
    request = await acme.request(
        asking(source, name="Papers 1", external_identifier="PP/1", accession="2314_2", client_context=context)
    )

    result = await acme.result(request)

    assert result.data["outcome"] in DONE
    assert result.key == f"acme.born-digital.{result.data['outcome']}"
    assert result.data["counts"]["originals"] == SMALL_FILES
    messages = acme.of(request)
    hold_order(messages)
    kinds = [message.kind for message in messages]
    assert kinds[:2] == ["request.accepted", "request.started"]
    assert "aip.created" in kinds
    assert {"acme.link.started", "acme.link.completed"} <= {message.key for message in messages}
    for message in messages:
        assert message.event["subject"] == request
        assert message.data["client_context"] == context
        assert message.data["external_identifier"] == "PP/1"
        assert message.data["accession"] == "2314_2"
        assert message.data["package_id"] == result.data["aip"]["id"]
    aip = open_aip(stored_path(result.data), tmp_path / "opened")
    assert len(aip.of("original")) == SMALL_FILES
    assert aip.folder.name == f"Papers_1-{result.data['aip']['id']}"
    assert result.data["aip"]["stored"][0]["location"] == "primary"


async def test_a_bare_request_is_known_by_the_id_of_its_message(service: Service, acme: Upstream) -> None:
    body = json.dumps(asking(source_of(service))).encode()
    identity = f"message-{uuid.uuid4()}"

    await acme.send(body, content_type="application/json", message_id=identity)

    assert (await acme.result(identity)).data["outcome"] in DONE


async def test_the_result_is_sent_to_who_asked_too(service: Service, acme: Upstream) -> None:
    answers = await acme.channel.declare_queue(exclusive=True)
    request = await acme.request(asking(source_of(service)), reply_to=answers.name, correlation_id="ticket-7")

    result = await acme.result(request)
    answer = Message(await acme.get(answers.name))

    assert answer.id == result.id
    assert answer.correlation_id == result.correlation_id == "ticket-7"
    assert (await answers.get(fail=False)) is None


async def test_the_same_request_twice_is_one_aip_and_its_result_again(service: Service, acme: Upstream) -> None:
    asked = asking(source_of(service), idempotency_key=f"key-{uuid.uuid4()}")
    first = await acme.request(asked)
    result = await acme.result(first)
    stored = stored_below(service.aips)
    seen = len(acme.messages)

    second = await acme.request(asked, identity=first)
    await acme.until(lambda message: acme.messages.index(message) >= seen and message.terminal, "the result again")

    assert second == first
    again = acme.messages[seen:]
    assert [message.data["aip"]["id"] for message in again] == [result.data["aip"]["id"]]
    assert stored_below(service.aips) == stored
    await asyncio.sleep(0.3)
    assert len(acme.messages) == seen + 1


async def test_the_same_wish_under_another_id_is_answered_under_that_id(service: Service, acme: Upstream) -> None:
    asked = asking(source_of(service))
    first = await acme.request({**asked, "client_context": {"who": "first"}})
    result = await acme.result(first)

    second = await acme.request({**asked, "client_context": {"who": "second"}})
    again = await acme.result(second)

    assert again.data["aip"] == result.data["aip"]
    assert again.event["subject"] == second
    assert again.id != result.id
    assert again.data["client_context"] == {"who": "second"}


async def test_what_was_refused_is_looked_at_again_once_it_is_mended(service: Service, acme: Upstream) -> None:
    name = f"late {uuid.uuid4().hex[:6]}"
    early = await acme.result(await acme.request(asking(service.sources / name)))
    source_of(service, name)

    request = await acme.request(asking(service.sources / name))
    late = await acme.result(request)

    assert early.data["error"]["code"] == "source.not_found"
    assert late.data["outcome"] in DONE
    assert late.data["attempt"] == 2
    hold_order(acme.of(request))


async def test_a_key_that_belongs_to_another_request_is_a_conflict(service: Service, acme: Upstream) -> None:
    key = f"key-{uuid.uuid4()}"
    first = await acme.request(asking(source_of(service), idempotency_key=key))
    await acme.result(first)

    second = await acme.request(asking(source_of(service), idempotency_key=key))
    result = await acme.result(second)

    assert result.data["outcome"] == "rejected"
    assert result.data["error"]["code"] == "request.idempotency_conflict"
    assert first in result.data["error"]["detail"]


async def test_more_requests_than_slots_are_all_answered(service: Service, acme: Upstream) -> None:
    requests = [await acme.request(asking(source_of(service))) for _ in range(5)]

    results = [await acme.result(request) for request in requests]

    assert {result.data["outcome"] for result in results} <= DONE
    assert len({result.data["aip"]["id"] for result in results}) == 5
    for request in requests:
        hold_order(acme.of(request))


# --- requests that are refused, and packages that fail


async def refusal(acme: Upstream, data: object) -> dict[str, Any]:
    """Send a request that is refused: told among events and as the result, with nothing between."""
    request = await acme.request(data)
    result = await acme.result(request)
    await acme.until(
        lambda message: message.exchange == "ingestd.events" and message.id == result.id, "the refusal among events"
    )

    assert result.data["outcome"] == result.data["state"] == "rejected"
    assert result.key.endswith(".rejected")
    assert [message.kind for message in acme.of(request)] == ["request.rejected"]
    assert result.data["error"]["remediation"]
    error: dict[str, Any] = result.data["error"]
    return error


async def test_wrong_types_are_refused_with_every_violation(service: Service, acme: Upstream) -> None:
    data = asking(source_of(service), name=7, deadline_seconds=-1, priority="urgent", client_context=[1])

    error = await refusal(acme, data)

    assert error["code"] == "request.schema_invalid"
    assert {violation["path"] for violation in error["violations"]} == {
        "data.name",
        "data.deadline_seconds",
        "data.priority",
        "data.client_context",
    }


async def test_an_unknown_option_is_refused_with_the_nearest_one(service: Service, acme: Upstream) -> None:
    error = await refusal(acme, asking(source_of(service), processing={"normalise": False}))

    assert error["code"] == "request.unknown_option"
    assert error["violations"][0]["expected"] == "did you mean normalize?"


async def test_an_unknown_location_is_refused(service: Service, acme: Upstream) -> None:
    error = await refusal(acme, asking(source_of(service), target={"location": "the moon"}))

    assert error["code"] == "request.unknown_location"


async def test_without_a_tenant_the_routing_key_s_is_answered(service: Service, acme: Upstream) -> None:
    """What can be read, and what is not even a valid request."""
    asked = [
        await acme.request({"source": {"location": str(service.sources / "missing")}}),
        await acme.request({"source": {"location": 3}}),
    ]

    results = [await acme.result(request) for request in asked]

    assert ["acme.default.rejected"] * 2 == [result.key for result in results]
    assert ["acme"] * 2 == [result.data["tenant"] for result in results]


async def test_a_source_that_is_missing_is_refused(service: Service, acme: Upstream) -> None:
    error = await refusal(acme, asking(service.sources / "missing"))

    assert error["code"] == "source.not_found"


async def test_what_is_outside_the_roots_is_refused_whether_it_is_there_or_not(
    service: Service, acme: Upstream, tmp_path: Path
) -> None:
    (service.sources / "way-out").symlink_to("/etc")
    outside = [
        "/etc/passwd",
        "/no/such/file",
        str(small_transfer(tmp_path / "outside")),
        f"{service.sources}/../sources-secret",
        f"{service.sources}/way-out/passwd",
        "file:///etc/passwd",
    ]

    errors = [await refusal(acme, {"source": {"location": location}, "tenant": "acme"}) for location in outside]

    assert {error["code"] for error in errors} <= {"source.access_denied", "request.unsupported_source"}
    assert len({(error["code"], error["remediation"]) for error in errors}) == 1


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/a.zip", "http://169.254.169.254/latest/meta-data", "http://localhost/x", "s3://b/k"],
)
async def test_addresses_that_are_not_public_are_refused(location: str, acme: Upstream) -> None:
    request = await acme.request({"source": {"location": location}, "tenant": "acme"})

    result = await acme.result(request)

    assert result.data["outcome"] in {"rejected", "failed"}
    assert result.data["error"]["code"] in {"request.unsupported_source", "source.access_denied"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{not json", "request.schema_invalid"),
        (b"[1, 2]", "request.schema_invalid"),
        (b"\xff\xfe\x00", "request.schema_invalid"),
        (b"[" * 30_000, "request.schema_invalid"),
        (b"", "request.schema_invalid"),
        (b'{"specversion": "1.0", "data": {}}', "request.schema_invalid"),
        (json.dumps({"data": "x" * 70_000, "id": "too-long"}).encode(), "request.schema_invalid"),
    ],
    ids=["not-json", "an-array", "not-utf8", "deep", "empty", "nameless", "too-long"],
)
async def test_what_is_no_request_goes_to_the_dead_letter_queue_with_the_reason(
    body: bytes, code: str, acme: Upstream
) -> None:
    await acme.send(body, headers={"mine": "kept"})

    dead = await acme.get("ingestd.dead")

    assert dead.body == body
    assert dead.headers["x-ingestd-code"] == code
    assert dead.headers["x-ingestd-reason"]
    assert dead.headers["mine"] == "kept"
    assert acme.messages == []


async def test_a_package_that_fails_says_where_and_why(service: Service, acme: Upstream) -> None:
    archive = damaged_since(service.sources / "wrong")
    stored = stored_below(service.aips)

    request = await acme.request(asking(archive))
    result = await acme.result(request)

    error = result.data["error"]
    assert result.kind == "request.failed"
    assert result.key == "acme.born-digital.failed"
    assert error["code"] == "content.checksum_manifest_mismatch"
    assert [violation["path"] for violation in error["violations"]] == ["one.txt", "two.txt"]
    assert "checksum" in error["link"]
    assert error["responsible"] == "submitter"
    hold_order(acme.of(request))
    assert "link.failed" in [message.kind for message in acme.of(request)]
    assert stored_below(service.aips) == stored
    assert result.data["work_folder"] is None, "the service's folders are its own affair"
    assert (service.program.data_dir / "work" / result.data["package_id"]).is_dir()


async def test_a_thousand_faults_stay_one_small_message(service: Service, acme: Upstream) -> None:
    source = source_of(service)
    for number in range(1000):
        (source / f"{number:04} {'ü' * 100}").symlink_to("/etc/passwd")

    result = await acme.result(await acme.request(asking(source)))

    assert result.data["error"]["code"] == "content.path_traversal"
    assert len(result.body) <= 64 * 1024


async def test_a_result_that_nobody_has_bound_is_kept(service: Service, acme: Upstream) -> None:
    queue = await acme.channel.get_queue(acme.queue, ensure=False)
    await queue.unbind("ingestd.results", "#")

    request = await acme.request(asking(service.sources / "missing"))

    kept = Message(await acme.get("ingestd.unrouted"))
    while kept.data["request_id"] != request:  # results that came between two tests
        kept = Message(await acme.get("ingestd.unrouted"))

    assert kept.kind == "request.rejected"


# --- the other commands, and what an operator asks


async def test_submit_and_wait_shows_progress_and_the_result(service: Service, acme: Upstream) -> None:
    source = source_of(service)
    run = await command(service, "submit", source, "--wait", "--tenant", "acme", "--name", "By hand")

    assert run.code == 0, run.err
    assert "Identify formats" in run.err
    assert "AIP " in run.out
    assert str(service.aips) in run.out

    refused = await command(service, "submit", service.sources / "missing", "--wait", "--tenant", "acme", "--json")
    assert refused.code == 2, refused.err
    assert json.loads(refused.out.splitlines()[-1])["data"]["error"]["code"] == "source.not_found"

    wrong = await command(service, "submit", source, "--set", "normalise=false")
    assert wrong.code == 2, wrong.err


async def test_submit_gives_the_id_by_which_watch_shows_it(service: Service, acme: Upstream) -> None:
    with running(service.program, "watch", "acme.#", "--json") as watching:
        await asyncio.sleep(1.5)
        run = await command(service, "submit", source_of(service), "--tenant", "acme")
        request = run.out.strip()
        kinds = await asyncio.to_thread(kinds_watched, watching, request)
        watching.send_signal(signal.SIGINT)
        _, err = await asyncio.to_thread(watching.communicate, timeout=20)

    assert run.code == 0, run.err
    assert kinds[0] == "org.ingestd.request.accepted.v1"
    assert kinds[-1] == "org.ingestd.aip.stored.v1"
    assert watching.returncode == 130
    assert b"Traceback" not in err


def kinds_watched(watching: subprocess.Popen[bytes], request: str) -> list[str]:
    """Read what `watch` prints, until the request's AIP is stored; give the types of its events."""
    assert watching.stdout
    found: list[str] = []
    for line in watching.stdout:
        event = json.loads(line)
        if event["data"]["request_id"] == request:
            found.append(event["type"])
            if "aip.stored" in event["type"]:
                break
    return found


async def test_topology_may_be_declared_again(service: Service) -> None:
    run = await command(service, "topology")

    assert run.code == 0, run.err
    assert "ingestd.requests" in run.out


async def test_health_readiness_and_metrics_answer(service: Service, acme: Upstream) -> None:
    await acme.result(await acme.request(asking(source_of(service))))

    health = await asyncio.to_thread(service.get, "/healthz")
    ready = await asyncio.to_thread(service.get, "/readyz")
    status, metrics = await asyncio.to_thread(service.get, "/metrics")
    nowhere = await asyncio.to_thread(service.get, "/nowhere")

    assert health == (200, "ok\n")
    assert ready == (200, "ok\n")
    assert status == 200
    assert 'ingestd_requests_total{outcome="' in metrics
    assert "ingestd_link_seconds_bucket" in metrics
    assert nowhere[0] == 404


# --- stops, deaths and losses


def long_work(service: Service) -> dict[str, Any]:
    """Ask for work that takes a few seconds, most of them in packing."""
    source = many_files(service.sources / "Archive", 100, heavy_bytes=5 * 2**20)
    processing = {"aip_compression_algorithm": "s7_lzma", "aip_compression_level": 9}
    return asking(source, processing=processing, idempotency_key="long")


def fresh() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


def following(service: Service) -> AbstractAsyncContextManager[Upstream]:
    """An upstream whose queue keeps what comes between two of its connections."""
    return upstream(service.url, f"{service.topology}.mine", topology=service.topology)


def begins(execute: str, request: str) -> Any:
    def wanted(message: Message) -> bool:
        link = message.data["link"]
        return (
            message.data["request_id"] == request
            and message.kind == "link.started"
            and link is not None
            and link["execute"] == execute
        )

    return wanted


async def finished(service: Service, acme: Upstream, request: str, into: Path) -> dict[str, Any]:
    """See a request through to its result: one AIP, whole, told once."""
    result = await acme.result(request, seconds=50)
    await asyncio.sleep(0.5)

    assert result.data["outcome"] in DONE, result.data["error"]
    messages = acme.of(request)
    assert len([message for message in messages if message.terminal]) == 1
    service.hold(acme.messages)
    assert stored_below(service.aips) == [stored_path(result.data)]
    aip = open_aip(stored_path(result.data), into)
    assert len(aip.of("original")) == result.data["counts"]["originals"]
    assert {message.data["package_id"] for message in messages} == {result.data["aip"]["id"]}
    return result.data


@pytest.mark.slow
@pytest.mark.parametrize("execute", ["characterize_file", "compress_aip"])
async def test_a_stopped_service_exits_in_time_and_the_next_one_goes_on(execute: str, tmp_path: Path, url: str) -> None:
    service = Service(tmp_path, url, topology=fresh())
    request = "stopped"
    with service.serving() as first:
        async with following(service) as acme:
            await acme.request(long_work(service), identity=request)
            await acme.until(begins(execute, request), execute)
            stopped_at = time.monotonic()
            first.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(first.wait, SHUTDOWN_SECONDS + 5)
            took = time.monotonic() - stopped_at
            before = acme.of(request)

    assert code == 0
    assert took < SHUTDOWN_SECONDS
    assert not any(message.terminal for message in before)
    assert stored_below(service.aips) == []

    with service.serving():
        async with following(service) as acme:
            data = await finished(service, acme, request, tmp_path / "opened")

    assert data["attempt"] == 2
    assert data["counts"]["originals"] == 101


@pytest.mark.slow
@pytest.mark.parametrize("execute", ["identify_file_format", "compress_aip"])
async def test_a_killed_service_is_started_again_and_goes_on(execute: str, tmp_path: Path, url: str) -> None:
    service = Service(tmp_path, url, topology=fresh(), AMQP__PARK_SECONDS=2)
    request = "killed"
    with service.serving() as first:
        async with following(service) as acme:
            await acme.request(long_work(service), identity=request)
            await acme.until(begins(execute, request), execute)
            os.kill(first.pid, signal.SIGKILL)
            await asyncio.to_thread(first.wait, 5)

    with service.serving():
        async with following(service) as acme:
            data = await finished(service, acme, request, tmp_path / "opened")

            async def nothing_left() -> bool:
                return (
                    await acme.count(f"{service.topology}.requests") + await acme.count(f"{service.topology}.inflight")
                    == 0
                )

            async with asyncio.timeout(20):
                while not await nothing_left():
                    await asyncio.sleep(0.1)

    assert data["attempt"] == 2


@pytest.mark.slow
async def test_a_broker_that_restarts_costs_nothing(tmp_path: Path, url: str, rabbit: RabbitNode) -> None:
    service = Service(tmp_path, url, topology=fresh())
    request = "through the restart"
    with service.serving():
        async with following(service) as acme:
            await acme.request(long_work(service), identity=request)
            await acme.until(begins("identify_file_format", request), "identification")
        await asyncio.to_thread(rabbit.stop)
        await asyncio.to_thread(
            wait_until, lambda: service.get("/readyz")[0] == 503, "the service to say that it is not ready"
        )
        health = service.get("/healthz")
        _, why = service.get("/readyz")
        await asyncio.to_thread(rabbit.start)
        await asyncio.to_thread(wait_until, lambda: service.get("/readyz")[0] == 200, "the service to be ready again")
        async with following(service) as acme:
            data = await finished(service, acme, request, tmp_path / "opened")

    assert health == (200, "ok\n")
    assert why.strip()
    assert PASSWORD not in why
    assert data["attempt"] == 1


@pytest.mark.slow
async def test_an_idle_service_stops_at_once_and_one_without_a_broker_too(tmp_path: Path, url: str) -> None:
    service = Service(tmp_path, url, topology=fresh())
    with service.serving() as idle:
        idle.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = idle.wait(SHUTDOWN_SECONDS)
        took = time.monotonic() - started

    service.program.settings = {**service.program.settings, "AMQP__URL": f"amqp://u:{PASSWORD}@127.0.0.1:1/"}
    with running(service.program, "serve", log=service.log) as alone:
        wait_until(lambda: service.get("/healthz")[0] == 200, "the service to be alive", every=0.05)
        ready = service.get("/readyz")
        alone.send_signal(signal.SIGINT)
        alone.wait(SHUTDOWN_SECONDS)

    said = service.log.read_text(encoding="utf-8")
    assert (code, alone.returncode) == (0, 0)
    assert took < 5
    assert ready[0] == 503
    assert PASSWORD not in ready[1] + said
    assert json.loads(said.splitlines()[-1])["event"] == "stopped"
