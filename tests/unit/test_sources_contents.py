"""What programs leave in a folder, and the names that it is given."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestd.config import UnpackSettings
from ingestd.errors import Code, ContentError
from ingestd.oais import safe_name
from ingestd.premis import DigestAlgorithm
from ingestd.sources.contents import MAX_NAME_BYTES, Placed, Plan, limits_of, short, survey, watch_folder
from ingestd.sources.records import Received
from ingestd.sources.writer import Meter


def meter(**unpack: float) -> Meter:
    return Meter(limits_of(UnpackSettings().model_copy(update=unpack), 100))


async def looked(folder: Path, **unpack: float) -> list[Received]:
    return [one async for window in survey(folder, DigestAlgorithm.SHA256, meter(**unpack)) for one in window]


async def planned(folder: Path, scratch: Path) -> tuple[Plan, list[Placed]]:
    scratch.mkdir(exist_ok=True)
    plan = Plan(folder, scratch, system_names=("Thumbs.db",))
    await plan.note(survey(folder, DigestAlgorithm.SHA256, meter()))
    plan.name("objects/x.zip-date")
    return plan, [placed for window in plan.windows() for placed in window]


async def test_only_files_and_folders_stay(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("file")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "d" / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))

    found = await looked(tmp_path)

    assert {"d/fifo", "link", "loop", "socket"} == {one.path for one in found if one.left_out and one.note}
    assert {"d", "f"} == {path.name for path in tmp_path.rglob("*")}
    assert ["d", "d/f"] == [one.path for one in found if not one.left_out]


async def test_modes_become_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "suid").write_text("x")
    (tmp_path / "shut" / "suid").chmod(0o4711)
    (tmp_path / "shut").chmod(0o000)

    await looked(tmp_path)

    assert 0o644 == stat.S_IMODE((tmp_path / "shut" / "suid").stat().st_mode)
    assert 0o755 == stat.S_IMODE((tmp_path / "shut").stat().st_mode)


@pytest.mark.parametrize("limit", [{"max_entries": 2}, {"max_bytes": 10}, {"max_depth": 1}])
async def test_more_than_allowed_is_a_bomb(tmp_path: Path, limit: dict[str, float]) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "d").write_bytes(b"x" * 20)

    with pytest.raises(ContentError) as raised:
        await looked(tmp_path, **limit)

    assert Code.CONTENT_ARCHIVE_BOMB is raised.value.code


async def test_a_folder_that_grows_over_the_limit_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 20)

    with pytest.raises(ContentError) as raised:
        await watch_folder(tmp_path, meter(max_bytes=10).limits)

    assert Code.CONTENT_ARCHIVE_BOMB is raised.value.code


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(
        st.binary(min_size=1, max_size=12).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
        | st.sampled_from([b"a b", b"a_b", b"a&b", b"a_b_1", b"a__b", b"a_1_b", "é".encode(), b"e"]),
        min_size=1,
        max_size=12,
    ).map(lambda raw: raw - {b".", b".."})
)
async def test_every_name_becomes_safe_and_no_two_the_same(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    content, target = folder / "content", folder / "target"
    content.mkdir()
    target.mkdir()
    for name in names:
        (content / os.fsdecode(name)).write_bytes(name)

    plan, placed = await planned(content, folder / "scratch")
    for window in plan.windows():
        plan.move(window, target)

    kept = {one.path: os.fsencode(one.received.path) for one in placed if not one.removed}
    assert {os.fsencode(one.received.path) for one in placed} == names
    assert len({one.path for one in placed}) == len(names)
    assert all(safe_name(one.path) == one.path for one in placed)
    assert all(one.path == one.received.path for one in placed if safe_name(one.received.path) == one.received.path)
    assert kept == {path.name: path.read_bytes() for path in target.iterdir()}


async def test_the_same_content_gets_the_same_names_and_a_second_move_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    seen = []
    for number in range(2):
        content = tmp_path / f"content{number}"
        (content / "d e").mkdir(parents=True)
        for name in ("a b", "a_b", "a&b", "d e/x y", "d e/x_y", ".hidden", "Thumbs.db"):
            (content / name).write_text(name)
        plan, placed = await planned(content, tmp_path / "scratch")
        for window in plan.windows():
            plan.move(window, target)
        seen.append([(one.path, one.received.path, one.removed) for one in placed])

    assert seen[0] == seen[1]
    assert {"a_b", "a_b_1", "a_b_2"} <= {path.name for path in target.iterdir()}
    assert {".hidden", "Thumbs.db"} == {raw for _, raw, removed in seen[0] if removed}
    assert "a_b" == (target / "a_b").read_text()


async def test_thousands_of_names_that_come_down_to_one_are_named_in_good_time(tmp_path: Path) -> None:
    async def many() -> AsyncIterator[Sequence[Received]]:
        yield [Received(path="?" * (number + 1)) for number in range(100)]
        yield [Received(path=f"\udcff{chr(0xE000 + number)}") for number in range(6000)]

    plan = Plan(tmp_path / "content", tmp_path, system_names=())
    await plan.note(many())
    started = time.monotonic()
    plan.name("objects/x")

    names = [one.path for window in plan.windows() for one in window]
    assert 6100 == len(set(names))
    assert time.monotonic() - started < 5


async def test_paths_that_would_be_too_long_are_refused_before_anything_moves(tmp_path: Path) -> None:
    async def deep() -> AsyncIterator[Sequence[Received]]:
        path = "d" * 200
        for _ in range(18):
            yield [Received(path=path, directory=True)]
            path = f"{path}/{'d' * 200}"

    plan = Plan(tmp_path / "content", tmp_path, system_names=())
    await plan.note(deep())

    with pytest.raises(ContentError) as raised:
        plan.name("objects/x")

    assert Code.CONTENT_STRUCTURE_INVALID is raised.value.code


def test_long_names_keep_their_extension() -> None:
    name = short("x" * 250 + ".tiff", room=20)

    assert MAX_NAME_BYTES - 20 == len(name)
    assert name.endswith(".tiff")


async def test_what_is_too_deep_to_be_opened_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "out"
    top.mkdir()
    place = os.open(top, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=place)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)

    with pytest.raises(ContentError) as caught:
        await looked(top)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await watch_folder(top, limits_of(UnpackSettings(), container_bytes=1))

    assert caught.value.code is Code.CONTENT_STRUCTURE_INVALID
