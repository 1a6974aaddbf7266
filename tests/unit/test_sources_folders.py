"""Folders and single files: what is found before anything is copied, what is received, and going on after a stop."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestd.config import SourceSettings, ToolSettings
from ingestd.errors import Code, RequestError, SourceError
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources import Checked, Kind, NoteCode, Source, check
from ingestd.sources.copying import copy
from ingestd.sources.locations import is_public, parse_url
from ingestd.sources.names import Tree, open_plain
from ingestd.sources.records import modified_at
from ingestd.tools.pool import Pool
from tests.receiving import Desk

SHA256 = DigestAlgorithm.SHA256
NAMES = [
    "plain",
    "\u00e9",
    "e\u0301",
    "new\nline",
    "q\"'`$(id)",
    "-rf",
    "dot. ",
    "100%41",
    "x" * 255,
    os.fsdecode(b"\xff\xfe"),
]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "source").mkdir()
    async with Pool(ToolSettings(processes=1), scratch=tmp_path) as pool:
        yield Desk(folder=tmp_path, pool=pool)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))


@pytest.fixture
def nobody() -> Iterator[None]:
    """Work as a user that may not read everything: root may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestFolder:
    async def test_what_manifests_ask_for_is_calculated_in_the_same_read(self, desk: Desk) -> None:
        fill(desk.source, "bagit.txt", "manifest-md5.txt", "data/metadata/checksum.sha1", "data/a", "manifest-odd.txt")

        received = {one.path: one for one in await desk.receive()}

        sums = {word: hashlib.new(word, b"data/a").hexdigest() for word in ("md5", "sha1")}
        assert sums == received["data/a"].more
        assert {} == received["data"].more

    async def test_a_file_called_as_a_manifest_asks_for_nothing_in_what_is_no_bag(self, desk: Desk) -> None:
        fill(desk.source, "manifest-md5.txt", "a")

        assert [{}, {}] == [one.more for one in await desk.receive()]

    async def test_everything_comes_parents_first_in_the_order_of_the_bytes(self, desk: Desk) -> None:
        fill(desk.source, "a/b", "a-b", "a/c/d", "z")
        (desk.source / "empty").mkdir()

        received = await desk.receive()

        assert ["a", "a/b", "a/c", "a/c/d", "a-b", "empty", "z"] == [one.path for one in received]
        assert ["a", "a/c", "empty"] == [one.path for one in received if one.directory]
        assert (desk.into / "empty").is_dir()

    async def test_a_file_comes_with_its_digest_size_and_time(self, desk: Desk) -> None:
        (desk.source / "a").write_bytes(b"content")
        os.utime(desk.source / "a", ns=(0, 1_000_000_000_123_456_789))

        (received,) = await desk.receive()

        assert received.digest is not None
        assert hashlib.sha256(b"content").hexdigest() == received.digest.value
        assert 7 == received.size_bytes
        assert datetime(2001, 9, 9, 1, 46, 40, 123456, UTC) == received.modified_at
        assert 1_000_000_000_123_456_789 == (desk.into / "a").stat().st_mtime_ns

    async def test_every_name_of_the_corpus_is_kept_to_the_byte(self, desk: Desk) -> None:
        fill(desk.source, *NAMES)

        received = await desk.receive()

        assert {name: os.fsencode(name) for name in NAMES} == desk.there()
        assert sorted(NAMES, key=os.fsencode) == [one.path for one in received]

    async def test_many_files_come_in_windows(self, desk: Desk) -> None:
        fill(desk.source, *(f"d/{number:04}" for number in range(600)))

        sizes = [len(window) async for window in desk.windows()]

        assert [256, 256, 89] == sizes

    async def test_an_empty_folder_gives_nothing(self, desk: Desk) -> None:
        assert [] == await desk.receive()

    async def test_a_file_url_is_read_as_bytes(self, desk: Desk) -> None:
        fill(desk.source, os.fsdecode(b"\xff %/a"))

        received = await desk.receive(f"file://{desk.source}/%FF%20%25")

        assert ["a"] == [one.path for one in received]

    async def test_no_descriptor_is_left_open_when_nobody_reads_on(self, desk: Desk) -> None:
        fill(desk.source, *(f"{number:04}" for number in range(300)))
        before = len(list(Path("/proc/self/fd").iterdir()))

        async with contextlib.aclosing(desk.windows()) as windows:  # type: ignore[type-var]
            async for _ in windows:
                break

        assert before == len(list(Path("/proc/self/fd").iterdir()))


class TestLinks:
    async def test_a_link_to_a_file_inside_is_received_as_a_copy(self, desk: Desk) -> None:
        fill(desk.source, "real")
        (desk.source / "sub").mkdir()
        (desk.source / "sub" / "link").symlink_to("../real")
        (desk.source / "chain").symlink_to("sub/link")

        received = {one.path: one for one in await desk.receive()}

        assert {"real": b"real", "sub/link": b"real", "chain": b"real"} == desk.there()
        assert not (desk.into / "chain").is_symlink()
        note = received["sub/link"].note
        assert note is not None
        assert (NoteCode.LINK_COPIED, "a symbolic link to real: received as a copy of it") == (note.code, note.detail)

    @pytest.mark.parametrize("target", ["sub", ".", "sub/.."])
    async def test_a_link_to_a_folder_inside_is_left_out_and_told_of(self, desk: Desk, target: str) -> None:
        fill(desk.source, "sub/a")
        (desk.source / "link").symlink_to(target)

        received = {one.path: one for one in await desk.receive()}

        assert {"sub/a": b"sub/a"} == desk.there()
        assert received["link"].left_out
        assert received["link"].note is not None
        assert NoteCode.LINK_LEFT_OUT == received["link"].note.code

    @pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "..", "sub/../../outside", "/nowhere"])
    async def test_a_link_out_is_refused(self, desk: Desk, target: str) -> None:
        (desk.folder / "outside").write_text("secret")
        fill(desk.source, "sub/a")
        (desk.source / "link").symlink_to(target)

        error = await desk.refused()

        assert Code.CONTENT_PATH_TRAVERSAL == error.code
        assert [("link", target)] == [(each.path, each.actual) for each in error.violations]

    async def test_a_link_in_a_circle_or_to_nothing_is_refused(self, desk: Desk) -> None:
        (desk.source / "a").symlink_to("b")
        (desk.source / "b").symlink_to("a")
        (desk.source / "c").symlink_to("missing")

        error = await desk.refused()

        assert (Code.CONTENT_STRUCTURE_INVALID, 3) == (error.code, len(error.violations))

    async def test_the_folder_itself_may_be_named_by_a_link(self, desk: Desk) -> None:
        fill(desk.source, "a")
        (desk.folder / "current").symlink_to("source")

        assert ["a"] == [one.path for one in await desk.receive(desk.folder / "current")]


class TestWhatIsWrong:
    async def test_everything_wrong_is_told_at_once_and_nothing_is_copied(self, desk: Desk) -> None:
        fill(desk.source, "good")
        os.mkfifo(desk.source / "pipe")
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(desk.source / "socket"))
        (desk.source / "out").symlink_to("/etc/passwd")
        (desk.source / "dangling").symlink_to("nothing")

        error = await desk.refused()

        assert Code.CONTENT_PATH_TRAVERSAL == error.code
        assert [
            ("dangling", "content.structure_invalid", "nothing"),
            ("out", "content.path_traversal", "/etc/passwd"),
            ("pipe", "content.structure_invalid", "a fifo"),
            ("socket", "content.structure_invalid", "a socket"),
        ] == [(each.path, each.rule, each.actual) for each in error.violations]
        assert error.detail.startswith("4 in all: ")

    async def test_a_hundred_are_listed_and_all_are_counted(self, desk: Desk) -> None:
        for number in range(130):
            (desk.source / str(number)).symlink_to("/etc/passwd")

        error = await desk.refused()

        assert 100 == len(error.violations)
        assert error.detail.startswith("130 in all, the first 100 are listed")

    async def test_a_device_is_refused(self, desk: Desk) -> None:
        try:
            os.mknod(desk.source / "null", 0o20600, os.makedev(1, 3))
        except PermissionError:
            os.mkfifo(desk.source / "null")  # not root here: another thing that is no file

        error = await desk.refused()

        assert (Code.CONTENT_STRUCTURE_INVALID, "null") == (error.code, error.violations[0].path)

    async def test_what_may_not_be_read_is_refused(
        self, tmp_path_factory: pytest.TempPathFactory, nobody: None
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ingestd-test-"))
        try:
            fill(folder / "source", "open/a", "closed/b", "c")
            (folder / "source" / "closed").chmod(0)
            (folder / "source" / "c").chmod(0)
            async with Pool(ToolSettings(processes=1), scratch=folder) as pool:
                error = await Desk(folder=folder, pool=pool).refused()
        finally:
            (folder / "source" / "closed").chmod(0o700)
            shutil.rmtree(folder)

        assert Code.SOURCE_ACCESS_DENIED == error.code
        assert isinstance(error, SourceError)
        assert ["c", "closed"] == sorted(each.path for each in error.violations)

    async def test_too_many_files_are_refused(self, desk: Desk) -> None:
        fill(desk.source, "a", "b", "c")
        desk.settings = SourceSettings(max_files=2)

        assert Code.POLICY_TOO_MANY_FILES == (await desk.refused()).code

    async def test_too_many_bytes_are_refused(self, desk: Desk) -> None:
        fill(desk.source, "aaaaa", "bbbbb")
        desk.settings = SourceSettings(max_bytes=9)

        assert Code.POLICY_SIZE_OVER_LIMIT == (await desk.refused()).code

    async def test_a_path_that_leaves_no_room_for_ours_is_refused(self, desk: Desk) -> None:
        at = os.open(desk.source, os.O_RDONLY)
        for _ in range(18):
            os.mkdir("d" * 200, dir_fd=at)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = deeper
        os.close(at)

        assert Code.CONTENT_STRUCTURE_INVALID == (await desk.refused()).code

    async def test_more_than_the_disk_has_is_refused_with_the_numbers(self, desk: Desk) -> None:
        with (desk.source / "sparse").open("wb") as file:
            file.truncate(2**43)
        desk.settings = SourceSettings(max_bytes=2**50)

        error = await desk.refused()

        assert Code.RESOURCE_DISK == error.code
        assert str(2**43) in error.detail

    async def test_a_folder_has_no_checksum(self, desk: Desk) -> None:
        error = await desk.refused(checksum=Digest(algorithm=SHA256, value="0" * 64, calculated_at=now()))

        assert Code.REQUEST_SCHEMA_INVALID == error.code


class TestChanges:
    async def test_a_file_that_comes_while_it_is_read_is_told(self, desk: Desk) -> None:
        fill(desk.source, *(f"{number:04}" for number in range(300)))
        windows = desk.windows()
        await anext(windows)
        (desk.source / "9999").write_text("late")

        with pytest.raises(SourceError) as caught:
            async for _ in windows:
                pass

        assert Code.SOURCE_CHANGED == caught.value.code

    @pytest.mark.parametrize("change", ["remove", "grow", "link"])
    async def test_a_file_that_changes_while_it_is_read_is_told(self, desk: Desk, change: str) -> None:
        fill(desk.source, *(f"{number:04}" for number in range(300)))
        last = desk.source / "0299"
        windows = desk.windows()
        await anext(windows)
        if change == "grow":
            last.write_text("more than before")
        else:
            last.unlink()
        if change == "link":
            last.symlink_to("/etc/passwd")

        with pytest.raises(SourceError) as caught:
            async for _ in windows:
                pass

        assert Code.SOURCE_CHANGED == caught.value.code
        assert "root:" not in "".join(data.decode() for data in desk.there().values())

    def test_a_file_that_is_not_what_was_seen_is_not_copied(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("a")
        seen = (tmp_path / "a").stat()
        (tmp_path / "a").write_text("changed")
        fd = os.open(tmp_path / "a", os.O_RDONLY)

        with pytest.raises(SourceError) as caught:
            copy(fd, str(tmp_path / "b"), algorithms=[SHA256], seen=seen, name="a", breathe=lambda: None)

        os.close(fd)
        assert Code.SOURCE_CHANGED == caught.value.code
        assert not (tmp_path / "b").exists()


class TestGoingOn:
    async def test_what_was_recorded_is_not_copied_or_told_again(self, desk: Desk) -> None:
        fill(desk.source, *(f"{number:04}" for number in range(300)))
        windows = desk.windows()
        await anext(windows)
        await windows.aclose()  # type: ignore[attr-defined]
        inodes = {name: (desk.into / name).stat().st_ino for name in desk.recorded}

        again = await desk.receive()

        assert [f"{number:04}" for number in range(256, 300)] == [one.path for one in again]
        assert inodes == {name: (desk.into / name).stat().st_ino for name in inodes}
        assert 300 == len(desk.there())

    async def test_half_a_file_is_copied_anew(self, desk: Desk) -> None:
        fill(desk.source, "a", "b")
        await desk.receive()
        (desk.into / "a").write_bytes(b"")

        again = await desk.receive()

        assert ["a"] == [one.path for one in again]
        assert {"a": b"a", "b": b"b"} == desk.there()

    async def test_what_was_copied_but_not_recorded_is_copied_anew(self, desk: Desk) -> None:
        fill(desk.source, "a")
        desk.into.mkdir()
        (desk.into / "a").write_bytes(b"?")

        await desk.receive()

        assert {"a": b"a"} == desk.there()

    async def test_what_the_source_no_longer_has_is_removed_unless_it_was_recorded(self, desk: Desk) -> None:
        fill(desk.source, "a")
        fill(desk.into, "gone", "old/gone")

        await desk.receive()

        assert {"a": b"a"} == desk.there()
        (desk.source / "a").unlink()
        with pytest.raises(SourceError) as caught:
            await desk.receive()
        assert Code.SOURCE_CHANGED == caught.value.code

    async def test_a_cancelled_copy_ends_soon(self, desk: Desk) -> None:
        with (desk.source / "large").open("wb") as file:
            file.truncate(2**33)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await desk.receive()

        assert (desk.into / "large").stat().st_size < 2**33


class TestFile:
    async def test_a_file_is_received_as_that_file(self, desk: Desk) -> None:
        fill(desk.source, "a b.txt")
        value = hashlib.sha1(b"a b.txt").hexdigest()

        (received,) = await desk.receive(
            desk.source / "a b.txt",
            checksum=Digest(algorithm=DigestAlgorithm.SHA1, value=value, calculated_at=now()),
        )

        assert {"a b.txt": b"a b.txt"} == desk.there()
        assert received.digest is not None
        assert (SHA256, hashlib.sha256(b"a b.txt").hexdigest()) == (received.digest.algorithm, received.digest.value)
        assert [] == await desk.receive(desk.source / "a b.txt")

    async def test_a_file_that_is_not_its_checksum_does_not_stay(self, desk: Desk) -> None:
        fill(desk.source, "a")

        error = await desk.refused(
            desk.source / "a", checksum=Digest(algorithm=DigestAlgorithm.MD5, value="0" * 32, calculated_at=now())
        )

        assert Code.SOURCE_CHECKSUM_MISMATCH == error.code

    async def test_a_file_over_the_limit_is_refused(self, desk: Desk) -> None:
        fill(desk.source, "aaaa")
        desk.settings = SourceSettings(max_bytes=3)

        assert Code.POLICY_SIZE_OVER_LIMIT == (await desk.refused(desk.source / "aaaa")).code


class TestCheck:
    async def test_a_folder_and_a_file_are_known_for_what_they_are(self, tmp_path: Path) -> None:
        fill(tmp_path, "folder/file")

        folder = await check(Source(location=f"{tmp_path}/folder/"), SourceSettings(), trusted=True)
        file = await check(Source(location=f"FILE://localhost{tmp_path}/folder/file"), SourceSettings(), trusted=True)

        assert Checked(kind=Kind.FOLDER, name="folder", path=tmp_path / "folder") == folder
        assert Checked(kind=Kind.FILE, name="file", path=tmp_path / "folder/file", size_bytes=11) == file

    async def test_what_does_not_exist_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            await check(Source(location=str(tmp_path / "missing")), SourceSettings(), trusted=True)

        assert Code.SOURCE_NOT_FOUND == caught.value.code

    @pytest.mark.parametrize(
        "location", ["/dev/null", "rsync://bucket/a", "ftp://host/a", "file://elsewhere/a", "", "a\0b"]
    )
    async def test_what_is_no_source_is_refused(self, location: str) -> None:
        with pytest.raises(RequestError) as caught:
            await check(Source(location=location), SourceSettings(), trusted=True)

        assert Code.REQUEST_UNSUPPORTED_SOURCE == caught.value.code

    async def test_a_fifo_is_refused_without_being_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        with pytest.raises(RequestError):
            await check(Source(location=str(tmp_path / "pipe")), SourceSettings(), trusted=True)

    async def test_a_request_may_read_nothing_where_no_root_is_set(self, tmp_path: Path) -> None:
        fill(tmp_path, "a")

        for location in (str(tmp_path), str(tmp_path / "a"), str(tmp_path / "missing"), "relative"):
            with pytest.raises(RequestError) as caught:
                await check(Source(location=location), SourceSettings(), trusted=False)
            assert Code.REQUEST_UNSUPPORTED_SOURCE == caught.value.code

    @pytest.mark.parametrize("trusted", [True, False])
    async def test_roots_hold_by_real_paths(self, tmp_path: Path, trusted: bool) -> None:
        fill(tmp_path, "root/a", "root-of-others/b", "c")
        (tmp_path / "root" / "out").symlink_to("../c")
        (tmp_path / "also").symlink_to("root")
        settings = SourceSettings(roots=(tmp_path / "also",))

        for good in ("root/a", "also/a", "root", "also"):
            source = Source(location=str(tmp_path / good))
            assert good.rpartition("/")[2] == (await check(source, settings, trusted=trusted)).name
        for bad in ("c", "", "root/out", "root/../c", "root-of-others/b", "missing"):
            with pytest.raises(RequestError):
                await check(Source(location=f"{tmp_path}/{bad}"), settings, trusted=trusted)

    async def test_a_scheme_that_is_switched_off_is_refused(self, tmp_path: Path) -> None:
        for location, schemes in ((str(tmp_path), ("https",)), ("http://example.org/a", ("file", "https"))):
            with pytest.raises(RequestError):
                await check(Source(location=location), SourceSettings(schemes=schemes), trusted=True)

    async def test_a_url_is_judged_without_being_fetched(self) -> None:
        checked = await check(Source(location="https://example.org/a%20b.zip?x=1"), SourceSettings(), trusted=False)

        assert Checked(kind=Kind.REMOTE, name="a b.zip") == checked

    @pytest.mark.parametrize(
        "location",
        [
            "http://127.0.0.1/a",
            "http://[::1]/a",
            "http://[::ffff:10.0.0.1]/a",
            "http://169.254.169.254/latest/meta-data",
            "http://user:secret@example.org/a",
            "http://example.org/a b",
            "http://example.org/a\r\nHost: other",
            "http:///a",
            "http://example.org:99999/a",
        ],
    )
    async def test_a_url_that_may_not_be_fetched_is_refused(self, location: str) -> None:
        with pytest.raises(RequestError) as caught:
            await check(Source(location=location), SourceSettings(), trusted=False)

        assert "secret" not in str(caught.value) + repr(caught.value.violations)

    def test_only_named_hosts_are_fetched_from_where_some_are_named(self) -> None:
        settings = SourceSettings(hosts=("Archive.example.org.", "10.0.0.1"))

        assert "archive.example.org" == parse_url("http://ARCHIVE.example.org/a", settings, trusted=False).host
        assert 80 == parse_url("http://10.0.0.1/a", settings, trusted=False).port
        for host in ("example.org", "10.0.0.2"):
            with pytest.raises(RequestError):
                parse_url(f"http://{host}/a", settings, trusted=True)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
    def test_these_addresses_are_public(self, address: str) -> None:
        assert is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
            *("224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
            *("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::"),
        ],
    )
    def test_these_addresses_are_not_public(self, address: str) -> None:
        assert not is_public(address)


class TestOpening:
    def test_no_part_of_a_path_may_be_a_link(self, tmp_path: Path) -> None:
        fill(tmp_path, "real/a")
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "real" / "b").symlink_to("a")

        os.close(open_plain(str(tmp_path / "real" / "a"), os.O_RDONLY))
        for path in ("link/a", "real/b", "real/../real/a"):
            with pytest.raises(OSError):
                open_plain(f"{tmp_path}/{path}", os.O_RDONLY)

    def test_a_tree_does_not_follow_a_folder_that_became_a_link(self, tmp_path: Path) -> None:
        fill(tmp_path, "source/sub/a", "elsewhere/a")
        with Tree(str(tmp_path / "source")) as tree:
            assert ["sub/a"] == [f"sub/{name}" for name in tree.names("sub")]
            tree.names("")
            shutil.rmtree(tmp_path / "source" / "sub")
            (tmp_path / "source" / "sub").symlink_to("../elsewhere")

            with pytest.raises(OSError):
                tree.open_file("sub/a")


@pytest.mark.parametrize("mtime_ns", [None, 2**80, -(2**80)])
def test_a_time_that_no_calendar_has_is_none(mtime_ns: int | None) -> None:
    assert modified_at(mtime_ns) is None
