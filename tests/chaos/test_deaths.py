"""One worker, killed again and again: at every link, within links, at every step of storing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.archives import Shelf, bucket_shelf, folder_shelf, hold_archive, sftp_shelf, two_shelves
from tests.chaos.fleet import DONE, LONG, Client, Fleet, Worker, chance, client, figure, hold_account, hold_links
from tests.objectstores import AZURE, Server, azurite, watched_moto
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(1800)]

FILES = 5
STEP_SECONDS = 60


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", "deaths")
    rabbit.control("set_permissions", "-p", "deaths", "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "deaths")


def counting_policy(folder: Path) -> tuple[Path, Path]:
    """A site's registry whose identification command takes its time, and writes down for which file it was run."""
    folder.mkdir()
    runs = folder / "runs"
    (folder / "identification.toml").write_text(
        f"""
[[identification_command]]
id = "counted"
tool = "ingestd"
description = "The extension of a file's name, slowly"
output = "ext"
script_type = "bashScript"
script = '''
echo "$1" >> {runs}
sleep 0.05
echo .txt
'''
""",
        encoding="utf-8",
    )
    return folder, runs


async def package_of(acme: Client, identity: str) -> str:
    """The package of a request: its first event names it."""
    await acme.until(lambda: acme.of(identity), f"the first event of {identity}")
    return str(acme.of(identity)[0].data["package_id"])


async def link_begun(worker: Worker, acme: Client, package: str, row: int, identity: str) -> bool:
    """Wait until the link of this row has begun; False when the request has ended before."""
    async with asyncio.timeout(STEP_SECONDS):
        while len(worker.jobs(package)) < row:
            assert worker.alive, worker.complaints()
            if acme.terminal(identity):
                return False
            await asyncio.sleep(0.001)
    return True


async def test_a_worker_that_dies_at_link_after_link_goes_on_and_makes_one_aip(url: str, tmp_path: Path) -> None:
    dice = chance("links")
    policy, runs = counting_policy(tmp_path / "policy")
    processing = {
        "identify_transfer": True,
        "identification_command": "counted",
        "aip_compression_algorithm": "s7_copy",
    }
    shelf = folder_shelf(tmp_path / "aips")
    fleet = Fleet(tmp_path / "fleet", url, shelf=shelf, KEEP_WORK="true", FPR_FOLDERS=json.dumps([str(policy)]))
    deaths: list[tuple[str, bool]] = []
    before: list[dict[int, Mapping[str, Any]]] = []
    with fleet.at_work():
        worker = fleet.one
        await worker.ready()
        async with client(url, fleet) as acme:
            await acme.request(fleet.source("walked", files=FILES), "walked", processing=processing)
            package = await package_of(acme, "walked")
            row = 1
            while await link_begun(worker, acme, package, row, "walked"):
                await asyncio.sleep(dice.choice((0, dice.uniform(0, 0.02), dice.uniform(0, 0.2))))
                worker.kill()
                jobs = worker.jobs(package)
                deaths.append((str(jobs[-1]["name"]), jobs[-1]["ended_at"] is None))
                before.append({job["row"]: job for job in jobs if job["ended_at"] is not None})
                worker.start()
                row = len(jobs) + (1 if LONG else dice.randint(14, 22))
            result = (await acme.results(["walked"]))["walked"]
            await acme.drained()
            hold_account(acme, ["walked"])
            hold_links(acme, "walked")

    after = {job["row"]: job for job in worker.jobs(package)}
    assert result.data["outcome"] in DONE
    assert [link for link, count in Counter(job["link"] for job in after.values()).items() if count > 1] == []
    for done in before:
        assert {number: after[number] for number in done} == done
    assert result.data["counts"]["originals"] == FILES
    interrupted = sum(name == "Identify formats" and inside for name, inside in deaths)
    ran = Counter(Path(line).name for line in runs.read_text(encoding="utf-8").splitlines())
    assert len(ran) == FILES
    assert ran.total() <= FILES * (1 + interrupted)
    await hold_archive(shelf, {package}, tmp_path / "fetched")
    figure(
        "links",
        deaths=len(deaths),
        inside_a_link=sum(inside for _, inside in deaths),
        between_links=sum(not inside for _, inside in deaths),
        links=len(after),
        links_died_at=len({name for name, _ in deaths}),
        attempts=result.data["attempt"],
        identifications=ran.total(),
    )


async def test_a_link_that_was_done_before_a_death_runs_no_program_again(url: str, tmp_path: Path) -> None:
    """Files of a window that was recorded are not identified again either."""
    dice = chance("programs")
    policy, runs = counting_policy(tmp_path / "policy")
    fleet = Fleet(tmp_path / "fleet", url, FPR_FOLDERS=json.dumps([str(policy)]))
    files, window, at_once = 150, 64, 4
    with fleet.at_work():
        worker = fleet.one
        await worker.ready()
        async with client(url, fleet) as acme:
            processing = {"identify_transfer": True, "identification_command": "counted"}
            await acme.request(fleet.source("many", files=files), "many", processing=processing)
            package = await package_of(acme, "many")
            kills = 0
            for share in sorted(dice.uniform(0.2, 0.9) for _ in range(4 if LONG else 1)):
                await acme.until(lambda: lines(runs) > share * files or acme.terminal("many"), "programs")  # noqa: B023
                worker.kill()
                kills += 1
                worker.start()
            result = (await acme.results(["many"], seconds=120))["many"]
            hold_account(acme, ["many"])

    assert result.data["outcome"] in DONE
    assert result.data["aip"]["id"] == package
    ran = Counter(Path(line).name for line in runs.read_text(encoding="utf-8").splitlines())
    assert len(ran) == files
    assert ran.total() - files <= kills * window * at_once
    figure("programs", files=files, deaths=kills, programs_run=ran.total())


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# --- storing


class Fuse:
    """Kills a worker at a request to the store: the one of this number from now on, before or after it is handled."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.left = 0
        self.answering = False
        self.hit = ""
        self.seen: list[str] = []

    def light(self, worker: Worker, number: int, *, answering: bool) -> None:
        self.hit, self.seen = "", []
        self.worker, self.left, self.answering = worker, number, answering

    def put_out(self) -> None:
        self.worker = None

    def watch(self, method: str, path: str, answering: bool) -> None:
        if self.worker is None or self.worker.process is None or answering is not self.answering:
            return
        self.seen.append(f"{method} {kind_of(path)}")
        self.left -= 1
        if self.left == 0:
            worker, self.worker = self.worker, None
            os.kill(worker.process.pid, signal.SIGKILL)  # type: ignore[union-attr]  # asked above
            self.hit = self.seen[-1]


def kind_of(path: str) -> str:
    path = path.partition("?")[0]
    if "/.ingestd/" in path:
        return f"lease ({path.split('/.ingestd/')[1].split('/', maxsplit=1)[0]})"
    return "AIP" if path.endswith((".tar", ".7z")) else "beside the AIP" if path.count("/") > 3 else "bucket"


@pytest.fixture(scope="module")
def fuse() -> Fuse:
    return Fuse()


@pytest.fixture(scope="module")
def store(fuse: Fuse) -> Iterator[Server]:
    with watched_moto(fuse.watch) as server:
        yield server


async def test_a_worker_that_dies_at_any_request_to_the_store_stores_one_aip_and_says_so_once(
    url: str, tmp_path: Path, fuse: Fuse, store: Server
) -> None:
    dice = chance("object store")
    shelf = bucket_shelf(store, "steps")
    fleet = Fleet(tmp_path / "fleet", url, shelf=shelf)
    died: list[str] = []
    requests: list[str] = []
    with fleet.at_work():
        worker = fleet.one
        await worker.ready()
        async with client(url, fleet) as acme:
            requests.append(await acme.request(fleet.source("measured"), "measured"))
            fuse.light(worker, 10**6, answering=True)
            await acme.results(requests)
            await acme.drained()
            steps = len(fuse.seen)
            every = [(number, answering) for number in range(1, steps + 1) for answering in (False, True)]
            for number, answering in every if LONG else sample(dice, every, 3):
                identity = f"step {number} {'answered' if answering else 'asked'}"
                fuse.light(worker, number, answering=answering)
                requests.append(await acme.request(fleet.source(identity), identity))
                await acme.until(lambda: fuse.hit or acme.terminal(identity), f"the death at {identity}")  # noqa: B023
                fuse.put_out()
                if fuse.hit:
                    worker.kill()
                    died.append(f"{'after' if answering else 'before'} {fuse.hit}")
                    if dice.random() < 0.3:
                        worker.lose()
                    worker.start()
                await acme.results([identity])
            found = await acme.results(requests)
            await acme.drained()
            hold_account(acme, requests)
    assert {message.data["outcome"] for message in found.values()} <= DONE
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    figure("object store", requests_to_it_each=steps, deaths=len(died), kinds=dict(Counter(died)))


def sample(dice: random.Random, every: list[tuple[int, bool]], count: int) -> list[tuple[int, bool]]:
    """Some of them, always with the last third, where the AIP is committed."""
    late = [one for one in every if one[0] > len(every) // 3]
    return dice.sample(every, count // 2) + dice.sample(late, count - count // 2)


@pytest.fixture(params=["folder", "two folders", "sftp", *AZURE] if LONG else ["two folders"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "sftp":
        with sftp_shelf(tmp_path / "aips") as made:
            yield made
    elif request.param == "azure":
        with azurite(tmp_path / "azurite") as server:
            yield bucket_shelf(server, "steps")
    else:
        yield {"folder": folder_shelf, "two folders": two_shelves}[request.param](tmp_path / "aips")


async def test_a_worker_that_dies_while_it_stores_in_folders_stores_one_aip_in_each(
    shelf: Shelf, url: str, tmp_path: Path
) -> None:
    dice = chance("folder")
    fleet = Fleet(tmp_path / "fleet", url, shelf=shelf)
    requests: list[str] = []
    died = Counter[str]()
    with fleet.at_work():
        worker = fleet.one
        await worker.ready()
        async with client(url, fleet) as acme:
            for number in range(25 if LONG else 1):
                identity = f"stored {number}"
                requests.append(await acme.request(fleet.source(identity, heavy_bytes=3 * 2**20), identity))
                package = await package_of(acme, identity)
                while not acme.terminal(identity) and not storing(worker, package):
                    await asyncio.sleep(0.001)
                await asyncio.sleep(dice.uniform(0, 0.12))
                worker.kill()
                committed = await shelf.archives[0].find(uuid.UUID(package)) is not None
                died["AIP there" if committed else "AIP not there"] += 1
                if dice.random() < 0.5:
                    worker.lose()
                    died["disk lost"] += 1
                worker.start()
                one = (await acme.results([identity]))[identity]
                assert one.data["outcome"] in DONE, json.dumps(one.data["error"], indent=1)
            found = await acme.results(requests)
            await acme.drained()
            hold_account(acme, requests)
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    figure(
        "folder",
        copies=len(shelf.archives),
        requests=len(requests),
        **{name.replace(" ", "_"): count for name, count in died.items()},
    )


def storing(worker: Worker, package: str) -> bool:
    return any(job["execute"] == "store_aip" for job in worker.jobs(package))
