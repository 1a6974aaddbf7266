"""Walking through folders: order, windows, and memory that does not grow with the names in one of them."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingestd.walking import in_order, used, walk, walked

NAMES = st.binary(min_size=1, max_size=255).map(os.fsdecode)


@given(names=st.lists(NAMES, max_size=40), at_once=st.integers(min_value=1, max_value=12))
def test_names_come_in_the_order_of_their_bytes_however_many_are_sorted_at_once(names: list[str], at_once: int) -> None:
    assert sorted(names, key=os.fsencode) == list(in_order(iter(names), at_once=at_once))


def test_memory_does_not_grow_with_the_names() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            names = (f"photograph {(number * 7919) % count:06}" for number in range(count))
            assert all(f"photograph {at:06}" == name for at, name in enumerate(in_order(names, at_once=1000)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(5_000), peak(50_000)

    assert many < 2 * few + 2**20  # each run that waits has a buffer


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_merge_that_nobody_ends_leaves_no_file_open() -> None:
    before = _open_files()
    names = in_order((str(number) for number in range(100)), at_once=10)
    assert "0" == next(names)
    assert before + 10 == _open_files()

    del names

    assert before == _open_files()


def test_what_is_used_counts_links_as_links_and_bears_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a/b/file")

    assert (5 + len("a/b/file"), 4) == used(tmp_path)
    assert (0, 0) == used(tmp_path / "gone")


async def test_a_walk_gives_every_file_in_the_order_of_its_bytes_and_follows_no_link(tmp_path: Path) -> None:
    for name in (b"a/z", b"a/b/c", b"a-b", b"B", b"\xff", b"a/b.txt"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)

    assert ["B", "a-b", "link", "\udcff", "a/b.txt", "a/z", "a/b/c"] == list(walk(tmp_path))
    assert ["a/b.txt", "a/z", "a/b/c"] == [path async for window in walked(tmp_path, "a") for path in window]


async def test_a_walk_comes_in_windows(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number:04}").touch()

    assert [256, 256, 88] == [len(window) async for window in walked(tmp_path)]
