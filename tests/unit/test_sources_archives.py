"""Archives of every kind, well made and hostile. All are made here; none of their bytes come from elsewhere."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingestd.config import SourceSettings, ToolSettings, UnpackSettings
from ingestd.errors import Code, ContentError, SourceError
from ingestd.oais import unescape_name
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources import Checked, Kind, NoteCode, Source, check, receive
from ingestd.sources.archives import _answer
from ingestd.sources.findings import LISTED
from ingestd.sources.links import LinkRefused, follow
from ingestd.sources.names import NameRefused, split
from ingestd.sources.readers import Taker
from ingestd.sources.unpack import main as unpack_main
from ingestd.sources.writer import Limits, Writer
from ingestd.tools.pool import Pool, Run, Stop
from tests.receiving import Desk

SHA256 = DigestAlgorithm.SHA256
WHEN = 1_000_000_000
PLAIN = {"readme.txt": b"hello", "objects/a b.txt": b"a", "objects/deep/er/b.bin": bytes(range(256))}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "package").mkdir()
    async with Pool(ToolSettings(processes=2, wall_seconds=60), scratch=tmp_path) as pool:
        yield Desk(folder=tmp_path / "package", pool=pool)


def make_zip(path: Path, files: Mapping[str, bytes] = PLAIN, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2001, 9, 9, 1, 46, 40)), data, compress_type=method)
    return path


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mtime = len(data), kind, link, WHEN
    return info, data


def make_tar(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def plain_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(name, data) for name, data in PLAIN.items()]


async def make_with_7z(
    pool: Pool, folder: Path, archive: str, *options: str, files: Mapping[str, bytes] = PLAIN
) -> Path:
    tree = folder / "tree"
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    run = await pool.run(["7z", "a", *options, str(folder / archive), "."], cwd=tree, writes=[folder])
    run.check()
    return folder / archive


def rar4(files: Mapping[str, bytes], *, volume: int = 0) -> bytes:
    """Write a RAR 4 archive with stored files (method 0x30), as far as a reader needs it."""

    def header(body: bytes) -> bytes:
        return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body

    out = b"Rar!\x1a\x07\x00" + header(struct.pack("<BHHHI", 0x73, volume, 13, 0, 0))
    for name, data in files.items():
        raw = name.encode()
        body = struct.pack("<BHH", 0x74, 0x8000, 32 + len(raw))
        body += struct.pack(
            "<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x2B290EC0, 20, 0x30, len(raw), 0o100644
        )
        out += header(body + raw) + data
    return out + header(struct.pack("<BHH", 0x7B, 0x4000, 7))


def rar5(files: Mapping[str, bytes], *, volume: int = 0) -> bytes:
    """Write a RAR 5 archive with stored files."""

    def number(value: int) -> bytes:
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    def header(body: bytes) -> bytes:
        sized = number(len(body)) + body
        return struct.pack("<I", zlib.crc32(sized)) + sized

    out = b"Rar!\x1a\x07\x01\x00" + header(number(1) + number(0) + number(volume))
    for name, data in files.items():
        raw = name.encode()
        body = number(2) + number(2) + number(len(data))
        body += number(2 | 4) + number(len(data)) + number(0o100644) + struct.pack("<II", WHEN, zlib.crc32(data))
        body += number(0) + number(1) + number(len(raw)) + raw
        out += header(body) + data
    return out + header(number(5) + number(0) + number(0))


class TestWellMade:
    async def test_what_the_manifests_of_a_zipped_bag_ask_for_is_calculated_while_unpacking(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        names = ("bag/bagit.txt", "bag/manifest-md5.txt", "bag/tagmanifest-sha512.txt", "bag/data/a")

        received = await desk.receive(make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"x")))

        sums = {word: hashlib.new(word, b"x").hexdigest() for word in ("md5", "sha512")}
        assert [sums] == [one.more for one in received if one.path == "data/a"]

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    async def test_a_tar_is_unpacked_however_it_is_compressed(self, desk: Desk, tmp_path: Path, mode: str) -> None:
        await desk.receive(make_tar(tmp_path / "no-ending", plain_members(), mode=mode))

        assert desk.there() == PLAIN

    @pytest.mark.tool
    async def test_a_7z_of_read_only_folders_and_files_is_unpacked(self, desk: Desk, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "deep" / "er").mkdir(parents=True)
        (tree / "deep" / "er" / "a").write_bytes(b"a")
        for path, mode in ((tree / "deep" / "er" / "a", 0), (tree / "deep" / "er", 0o555), (tree / "deep", 0o500)):
            path.chmod(mode)
        (await desk.pool.run(["7z", "a", str(tmp_path / "a.7z"), "."], cwd=tree, writes=[tmp_path])).check()

        await desk.receive(tmp_path / "a.7z")

        assert {"er/a": b"a"} == desk.there()

    @pytest.mark.tool
    async def test_a_tar_zst_is_unpacked(self, desk: Desk, tmp_path: Path) -> None:
        tar = make_tar(tmp_path / "a.tar", plain_members())
        (await desk.pool.run(["zstd", "-q", str(tar)], writes=[tmp_path])).check()

        await desk.receive(tmp_path / "a.tar.zst")

        assert desk.there() == PLAIN

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    async def test_a_zip_is_unpacked_whatever_its_method(self, desk: Desk, tmp_path: Path, method: int) -> None:
        await desk.receive(make_zip(tmp_path / "a", method=method))

        assert desk.there() == PLAIN

    @pytest.mark.tool
    @pytest.mark.parametrize("options", [("-t7z",), ("-t7z", "-m0=PPMd"), ("-tzip", "-mm=Deflate64")])
    async def test_what_7z_makes_is_unpacked(self, desk: Desk, tmp_path: Path, options: tuple[str, ...]) -> None:
        files = {**PLAIN, "noise": random.Random(1).randbytes(50_000) * 3}

        received = await desk.receive(await make_with_7z(desk.pool, tmp_path, "a.x", *options, files=files))

        assert files == desk.there()
        assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
            one.path: one.digest.value for one in received if one.digest
        }

    @pytest.mark.parametrize("write", [rar4, rar5])
    async def test_a_rar_is_unpacked(
        self, desk: Desk, tmp_path: Path, write: Callable[[Mapping[str, bytes]], bytes]
    ) -> None:
        (tmp_path / "a").write_bytes(write({"one.txt": b"first", "sub/zwei é.txt": b"second"}))

        await desk.receive(tmp_path / "a")

        assert desk.there() == {"one.txt": b"first", "sub/zwei é.txt": b"second"}

    async def test_facts_of_each_file_are_told_parents_first_and_in_order(self, desk: Desk, tmp_path: Path) -> None:
        members = [member("z", b"1"), member("a/b/x", b"22"), member("a-b", b""), member("empty", kind=tarfile.DIRTYPE)]

        received = await desk.receive(make_tar(tmp_path / "a.tar", members))

        assert [one.path for one in received] == ["a", "a/b", "a/b/x", "a-b", "empty", "z"]
        assert {"a", "a/b", "empty"} == {one.path for one in received if one.directory}
        last = received[-1]
        assert (1, datetime.fromtimestamp(WHEN, UTC)) == (last.size_bytes, last.modified_at)
        assert last.digest is not None
        assert (SHA256, hashlib.sha256(b"1").hexdigest()) == (last.digest.algorithm, last.digest.value)
        assert (desk.into / "z").stat().st_mtime == WHEN

    async def test_an_archive_unpacks_anew_and_only_tells_what_was_not_recorded(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        archive = make_zip(tmp_path / "a.zip")
        desk.into.mkdir(parents=True)
        (desk.into / "half").write_text("of an earlier run")
        desk.recorded = {"readme.txt", "objects"}

        received = await desk.receive(archive)

        assert desk.there() == PLAIN
        assert [one.path for one in received] == [
            "objects/a b.txt",
            "objects/deep",
            "objects/deep/er",
            "objects/deep/er/b.bin",
        ]

    async def test_many_files_come_in_windows(self, desk: Desk, tmp_path: Path) -> None:
        archive = make_tar(tmp_path / "a.tar", [member(f"d{number % 7}/{number:04}", b"x") for number in range(700)])
        windows = receive(
            Source(location=str(archive)),
            desk.into,
            settings=SourceSettings(),
            unpack=desk.unpack,
            algorithm=SHA256,
            pool=desk.pool,
            trusted=True,
            known=desk.known,
            scratch=desk.folder / "scratch",
        )

        assert [len(window) async for window in windows] == [256, 256, 195]

    async def test_an_archive_with_its_checksum_is_received(self, desk: Desk, tmp_path: Path) -> None:
        archive = make_zip(tmp_path / "a.zip")
        value = hashlib.md5(archive.read_bytes()).hexdigest()

        await desk.receive(archive, checksum=Digest(algorithm=DigestAlgorithm.MD5, value=value, calculated_at=now()))

        assert desk.there() == PLAIN

    async def test_an_archive_that_is_not_its_checksum_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        wrong = Digest(algorithm=SHA256, value="0" * 64, calculated_at=now())

        error = await desk.refused(make_zip(tmp_path / "a.zip"), checksum=wrong)

        assert error.code == Code.SOURCE_CHECKSUM_MISMATCH
        assert isinstance(error, SourceError)
        assert wrong.value == error.violations[0].expected

    async def test_an_empty_archive_is_received_as_nothing(self, desk: Desk, tmp_path: Path) -> None:
        assert await desk.receive(make_zip(tmp_path / "a.zip", {})) == []


class TestWrapping:
    async def test_one_folder_around_everything_is_dropped(self, desk: Desk, tmp_path: Path) -> None:
        files = {
            "my transfer/metadata/metadata.csv": b"m",
            "my transfer/objects/a": b"a",
            "my transfer/my transfer": b"",
        }

        received = await desk.receive(make_zip(tmp_path / "a.zip", files))

        assert desk.there() == {"metadata/metadata.csv": b"m", "objects/a": b"a", "my transfer": b""}
        assert [one.path for one in received] == [
            "metadata",
            "metadata/metadata.csv",
            "my transfer",
            "objects",
            "objects/a",
        ]

    @pytest.mark.parametrize("name", ["objects", "metadata"])
    async def test_a_folder_that_means_something_stays(self, desk: Desk, tmp_path: Path, name: str) -> None:
        await desk.receive(make_zip(tmp_path / "a.zip", {f"{name}/a": b"a"}))

        assert {f"{name}/a": b"a"} == desk.there()

    async def test_two_things_at_the_top_stay(self, desk: Desk, tmp_path: Path) -> None:
        await desk.receive(make_zip(tmp_path / "a.zip", {"one/a": b"a", "two": b"b"}))

        assert desk.there() == {"one/a": b"a", "two": b"b"}

    async def test_only_one_folder_is_dropped(self, desk: Desk, tmp_path: Path) -> None:
        await desk.receive(make_zip(tmp_path / "a.zip", {"one/two/a": b"a"}))

        assert desk.there() == {"two/a": b"a"}


class TestFilesThatLookLikeArchives:
    @pytest.mark.parametrize(
        "files",
        [
            {"mimetype": b"application/epub+zip", "META-INF/container.xml": b"<a/>"},
            {"_rels/.rels": b"", "[Content_Types].xml": b"<Types/>", "word/document.xml": b""},
            {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n", "A.class": b""},
        ],
    )
    async def test_a_document_is_a_file(self, desk: Desk, tmp_path: Path, files: Mapping[str, bytes]) -> None:
        document = make_zip(tmp_path / "document.zip", files, zipfile.ZIP_STORED)

        received = await desk.receive(document)

        assert [one.path for one in received] == ["document.zip"]
        assert Kind.FILE is (await check(Source(location=str(document)), SourceSettings(), trusted=True)).kind

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
    @pytest.mark.parametrize("data", [b"", b"notes", bytes(4096)])
    async def test_a_compressed_file_is_a_file(
        self, desk: Desk, tmp_path: Path, compress: Callable[[bytes], bytes], data: bytes
    ) -> None:
        (tmp_path / "notes.txt.gz").write_bytes(compress(data))

        await desk.receive(tmp_path / "notes.txt.gz")

        assert {"notes.txt.gz": compress(data)} == {
            name: data if name != "notes.txt.gz" else (tmp_path / name).read_bytes()
            for name, data in desk.there().items()
        }

    @pytest.mark.tool
    @pytest.mark.parametrize("data", [b"notes", bytes(4096)])
    async def test_a_file_compressed_with_zstd_is_a_file(self, desk: Desk, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "notes").write_bytes(data)
        (await desk.pool.run(["zstd", "-q", str(tmp_path / "notes")], writes=[tmp_path])).check()

        await desk.receive(tmp_path / "notes.zst")

        assert {"notes.zst": (tmp_path / "notes.zst").read_bytes()} == desk.there()

    async def test_a_name_alone_makes_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "not.zip").write_bytes(b"PK, I said")

        checked = await check(Source(location=str(tmp_path / "not.zip")), SourceSettings(), trusted=True)

        assert Checked(kind=Kind.FILE, name="not.zip", path=tmp_path / "not.zip", size_bytes=10) == checked

    async def test_a_zip_with_very_many_entries_is_looked_at_quickly(self, tmp_path: Path) -> None:
        archive = make_zip(tmp_path / "a.zip", {f"{number}": b"" for number in range(20_000)}, zipfile.ZIP_STORED)
        began = time.monotonic()

        checked = await check(Source(location=str(archive)), SourceSettings(), trusted=True)

        assert Kind.ARCHIVE is checked.kind
        assert time.monotonic() - began < 2


NAMES = [
    "plain",
    "\u00e9 NFC",
    "e\u0301 NFD",
    "new\nline",
    "quote\"'`$(id)",
    "-rf",
    "trailing. ",
    "100%41",
    "back\\slash",
    "x" * 255,
    "\U0001f4be",
    "colon: name",
]


class TestNames:
    @pytest.mark.tool
    @pytest.mark.parametrize("form", ["zip", "tar", "7z"])
    async def test_every_name_of_the_corpus_is_kept_to_the_byte(self, desk: Desk, tmp_path: Path, form: str) -> None:
        files = {name: name.encode() for name in NAMES}
        path = tmp_path / "a"
        if form == "7z":
            archive = await make_with_7z(desk.pool, tmp_path, "a.7z", files=files)
        else:
            tar = form == "tar"
            archive = make_tar(path, [member(*pair) for pair in files.items()]) if tar else make_zip(path, files)

        received = await desk.receive(archive)

        assert files == desk.there()
        assert sorted(files, key=os.fsencode) == [one.path for one in received]

    async def test_bytes_that_are_not_utf8_are_kept_in_a_zip(self, desk: Desk, tmp_path: Path) -> None:
        archive = make_zip(tmp_path / "a.zip", {"Xber.txt": b"1", "Xnd.txt": b"2"})
        archive.write_bytes(archive.read_bytes().replace(b"Xber.txt", b"\xfcber.txt").replace(b"Xnd", b"\x81nd"))

        received = await desk.receive(archive)

        assert [os.fsencode(one.path) for one in received] == [b"\x81nd.txt", b"\xfcber.txt"]
        assert sorted(os.fsencode(path.name) for path in desk.into.iterdir()) == [b"\x81nd.txt", b"\xfcber.txt"]

    async def test_bytes_that_are_not_utf8_are_kept_in_a_tar(self, desk: Desk, tmp_path: Path) -> None:
        name = os.fsdecode(b"M\xfcll\xff")
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
            archive.addfile(member(name)[0])

        received = await desk.receive(tmp_path / "a.tar")

        assert [name] == [one.path for one in received]

    async def test_a_leading_dot_slash_is_no_part_of_the_name(self, desk: Desk, tmp_path: Path) -> None:
        members = [member("./", kind=tarfile.DIRTYPE), member("./a", b"a"), member("./b/./c", b"c")]

        await desk.receive(make_tar(tmp_path / "a.tar", members))

        assert desk.there() == {"a": b"a", "b/c": b"c"}


CLIMBING = ["../out", "a/../../out", "/etc/out", "//out", "a//b", "C:/out", "C:\\out", "..", "/", "a/.."]


class TestHostile:
    @pytest.mark.parametrize("name", CLIMBING)
    async def test_a_name_that_climbs_out_is_refused_in_a_tar(self, desk: Desk, tmp_path: Path, name: str) -> None:
        archive = make_tar(tmp_path / "a.tar", [member("good", b"g"), member(name, b"bad"), member("late", b"l")])

        error = await desk.refused(archive)

        assert error.code == Code.CONTENT_PATH_TRAVERSAL
        assert [name] == [unescape_name(violation.path) for violation in error.violations]

    async def test_a_name_that_climbs_out_is_refused_in_a_zip(self, desk: Desk, tmp_path: Path) -> None:
        error = await desk.refused(make_zip(tmp_path / "a.zip", {"a": b"", "../../b": b"", "/c": b"", "d": b""}))

        assert error.code == Code.CONTENT_PATH_TRAVERSAL
        assert [violation.path for violation in error.violations] == ["../../b", "/c"]

    async def test_all_violations_are_told_but_not_without_end(self, desk: Desk, tmp_path: Path) -> None:
        error = await desk.refused(make_tar(tmp_path / "a.tar", [member(f"../{number}") for number in range(150)]))

        assert len(error.violations) == LISTED
        assert error.detail.startswith("150 in all, the first 100 are listed")

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "sub/../../x", "/"])
    async def test_a_link_out_is_refused(self, desk: Desk, tmp_path: Path, target: str) -> None:
        error = await desk.refused(
            make_tar(tmp_path / "a.tar", [member("ok", b""), member("link", kind=tarfile.SYMTYPE, link=target)])
        )

        assert (Code.CONTENT_PATH_TRAVERSAL, target) == (error.code, error.violations[0].actual)

    async def test_writing_through_a_link_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        members = [member("link", kind=tarfile.SYMTYPE, link=str(outside)), member("link/out", b"bad")]

        error = await desk.refused(make_tar(tmp_path / "a.tar", members))

        assert error.code == Code.CONTENT_PATH_TRAVERSAL
        assert list(outside.iterdir()) == []

    async def test_writing_through_a_link_inside_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        members = [
            member("dir/x", b""),
            member("link", kind=tarfile.SYMTYPE, link="dir"),
            member("link/out", b"bad"),
        ]

        error = await desk.refused(make_tar(tmp_path / "a.tar", members))

        assert error.code == Code.CONTENT_NAME_COLLISION

    @pytest.mark.parametrize("target", ["../outside", "/etc/passwd"])
    async def test_a_hard_link_out_is_refused(self, desk: Desk, tmp_path: Path, target: str) -> None:
        error = await desk.refused(
            make_tar(tmp_path / "a.tar", [member("ok", b""), member("link", kind=tarfile.LNKTYPE, link=target)])
        )

        assert error.code == Code.CONTENT_PATH_TRAVERSAL

    async def test_a_hard_link_to_nothing_is_damage(self, desk: Desk, tmp_path: Path) -> None:
        error = await desk.refused(
            make_tar(tmp_path / "a.tar", [member("ok", b""), member("link", kind=tarfile.LNKTYPE, link="missing")])
        )

        assert error.code == Code.CONTENT_ARCHIVE_CORRUPT

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    async def test_devices_and_fifos_are_refused(self, desk: Desk, tmp_path: Path, kind: bytes) -> None:
        error = await desk.refused(make_tar(tmp_path / "a.tar", [member("ok", b""), member("device", kind=kind)]))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_STRUCTURE_INVALID, "device")

    @pytest.mark.parametrize(
        "members",
        [
            [member("a", b"1"), member("a", b"2")],
            [member("a", b"1"), member("a/b", b"2")],
            [member("a/b", b"1"), member("a", b"2")],
            [member("a", b"1"), member("a", kind=tarfile.DIRTYPE)],
            [member("a", b"1"), member("./a", b"2")],
            [member("b", b"1"), member("a", kind=tarfile.SYMTYPE, link="b"), member("a", b"2")],
        ],
    )
    async def test_two_things_of_one_name_are_refused(
        self, desk: Desk, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
    ) -> None:
        error = await desk.refused(make_tar(tmp_path / "a.tar", members))

        assert error.code == Code.CONTENT_NAME_COLLISION
        assert error.violations[0].path in {"a", "a/b"}

    async def test_one_folder_may_be_named_twice(self, desk: Desk, tmp_path: Path) -> None:
        members = [
            member("a", kind=tarfile.DIRTYPE),
            member("a/b", b"b"),
            member("a", kind=tarfile.DIRTYPE),
            member("c"),
        ]

        await desk.receive(make_tar(tmp_path / "a.tar", members))

        assert desk.there() == {"a/b": b"b", "c": b""}

    async def test_a_name_longer_than_a_file_system_takes_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        error = await desk.refused(make_tar(tmp_path / "a.tar", [member("x" * 256), member("a/" * 1800 + "b")]))

        assert error.code == Code.CONTENT_STRUCTURE_INVALID
        assert len(error.violations) == 2


class TestLinksInside:
    async def test_a_link_to_a_file_inside_becomes_a_copy_with_a_note(self, desk: Desk, tmp_path: Path) -> None:
        members = [
            member("sub/early", kind=tarfile.SYMTYPE, link="../real"),
            member("real", b"content"),
            member("chain", kind=tarfile.SYMTYPE, link="sub/early"),
            member("through", kind=tarfile.SYMTYPE, link="folder/../real"),
            member("folder", kind=tarfile.SYMTYPE, link="sub"),
        ]

        received = {one.path: one for one in await desk.receive(make_tar(tmp_path / "a.tar", members))}

        assert dict.fromkeys(["real", "sub/early", "chain", "through"], b"content") == desk.there()
        assert sorted(path for path, one in received.items() if one.note and one.note.code is NoteCode.LINK_COPIED) == [
            "chain",
            "sub/early",
            "through",
        ]
        assert received["chain"].digest is not None
        assert received["real"].digest is not None
        assert received["real"].digest.value == received["chain"].digest.value
        folder = received["folder"]
        assert folder.note is not None
        assert (folder.left_out, folder.note.code) == (True, NoteCode.LINK_LEFT_OUT)
        assert not (desk.into / "folder").exists()

    async def test_a_link_in_a_zip_is_a_link(self, desk: Desk, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("w/real", b"content")
            for name, target in (("w/link", "real"), ("w/folder", "../w")):
                link = zipfile.ZipInfo(name)
                link.create_system, link.external_attr = 3, 0o120777 << 16
                archive.writestr(link, target)

        received = {one.path: one for one in await desk.receive(tmp_path / "a.zip")}

        assert desk.there() == {"real": b"content", "link": b"content"}
        assert received["folder"].left_out
        assert received["link"].note is not None

    @pytest.mark.parametrize(("one", "two"), [("b", "a"), ("missing", "a"), ("a", "a")])
    async def test_a_link_that_leads_nowhere_is_refused(self, desk: Desk, tmp_path: Path, one: str, two: str) -> None:
        members = [
            member("ok", b""),
            member("a", kind=tarfile.SYMTYPE, link=one),
            member("b", kind=tarfile.SYMTYPE, link=two),
        ]

        error = await desk.refused(make_tar(tmp_path / "a.tar", members))

        assert (error.code, len(error.violations)) == (Code.CONTENT_STRUCTURE_INVALID, 2)

    async def test_a_hard_link_becomes_a_file_of_its_own(self, desk: Desk, tmp_path: Path) -> None:
        members = [member("a", b"content"), member("b", kind=tarfile.LNKTYPE, link="a")]

        received = await desk.receive(make_tar(tmp_path / "a.tar", members))

        assert desk.there() == {"a": b"content", "b": b"content"}
        assert (desk.into / "a").stat().st_ino != (desk.into / "b").stat().st_ino
        assert [one.size_bytes for one in received] == [7, 7]


class TestBombs:
    async def test_too_many_bytes_are_a_bomb(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_bytes=1_000_000)

        error = await desk.refused(make_zip(tmp_path / "a.zip", {"a": bytes(600_000), "b": bytes(600_000)}))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_ARCHIVE_BOMB, "unpack.max_bytes")

    async def test_too_much_out_of_too_little_is_a_bomb(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_ratio=100, ratio_from_bytes=500_000)

        error = await desk.refused(make_zip(tmp_path / "a.zip", {"a": bytes(1_000_000)}))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_ARCHIVE_BOMB, "unpack.max_ratio")

    async def test_a_small_archive_may_be_as_dense_as_it_likes(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_ratio=10, ratio_from_bytes=2_000_000)

        assert len(await desk.receive(make_zip(tmp_path / "a.zip", {"a": bytes(1_000_000)}))) == 1

    @pytest.mark.parametrize("names", [[f"{number}" for number in range(101)], ["/".join("d" * 101)]])
    async def test_too_many_entries_are_a_bomb_also_where_folders_are_only_implied(
        self, desk: Desk, tmp_path: Path, names: list[str]
    ) -> None:
        desk.unpack = UnpackSettings(max_entries=100)

        error = await desk.refused(make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"")))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_ARCHIVE_BOMB, "unpack.max_entries")

    async def test_too_deep_is_a_bomb(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_depth=10)

        error = await desk.refused(make_zip(tmp_path / "a.zip", {"d/" * 11 + "a": b""}))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_ARCHIVE_BOMB, "unpack.max_depth")

    async def test_many_links_to_one_file_count_as_copies(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_bytes=1_000_000)
        links = [member(f"{number}", kind=tarfile.SYMTYPE, link="real") for number in range(20)]

        error = await desk.refused(make_tar(tmp_path / "a.tar", [member("real", bytes(100_000)), *links]))

        assert (error.code, error.violations[0].path) == (Code.CONTENT_ARCHIVE_BOMB, "unpack.max_bytes")

    async def test_what_follows_the_end_of_a_compressed_tar_counts(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_bytes=1_000_000)
        tar = make_tar(tmp_path / "a.tar", [member("a", b"a"), member("b", b"b")]).read_bytes()
        (tmp_path / "a.tgz").write_bytes(gzip.compress(tar + bytes(3_000_000)))

        error = await desk.refused(tmp_path / "a.tgz")

        assert error.code == Code.CONTENT_ARCHIVE_BOMB

    @pytest.mark.tool
    async def test_limits_hold_for_what_only_7z_can_read(self, desk: Desk, tmp_path: Path) -> None:
        desk.unpack = UnpackSettings(max_bytes=100_000)
        data = random.Random(2).randbytes(60_000) * 2

        error = await desk.refused(
            await make_with_7z(desk.pool, tmp_path, "a.zip", "-tzip", "-mm=Deflate64", files={"a": data, "b": b""})
        )

        assert error.code == Code.CONTENT_ARCHIVE_BOMB


class TestDamaged:
    @pytest.mark.parametrize("form", ["zip", "tar", "tgz", "tbz2", "txz", "rar4", "rar5"])
    async def test_an_archive_cut_short_is_refused(self, desk: Desk, tmp_path: Path, form: str) -> None:
        size = 500_000 if form == "tbz2" else 9000  # less than a block of bzip2 is not known for a tar
        files = {name: random.Random(name).randbytes(size) for name in ("one", "two", "three")}
        members = [member(*pair) for pair in files.items()]
        path = tmp_path / "a"
        make: dict[str, Callable[[], object]] = {
            "zip": lambda: make_zip(path, files),
            "tar": lambda: make_tar(path, members),
            "tgz": lambda: make_tar(path, members, mode="w:gz"),
            "tbz2": lambda: make_tar(path, members, mode="w:bz2"),
            "txz": lambda: make_tar(path, members, mode="w:xz"),
            "rar4": lambda: path.write_bytes(rar4(files)),
            "rar5": lambda: path.write_bytes(rar5(files)),
        }
        make[form]()
        os.truncate(path, path.stat().st_size * 2 // 3)

        error = await desk.refused(path)

        assert error.code == Code.CONTENT_ARCHIVE_CORRUPT

    @pytest.mark.parametrize("where", [-8, -4])
    async def test_a_gzip_that_belies_its_own_checksum_is_refused(self, desk: Desk, tmp_path: Path, where: int) -> None:
        path = make_tar(tmp_path / "a.tgz", plain_members(), mode="w:gz")
        data = bytearray(path.read_bytes())
        data[where] ^= 1
        path.write_bytes(data)

        error = await desk.refused(path)

        assert error.code == Code.CONTENT_ARCHIVE_CORRUPT

    @pytest.mark.parametrize("write", [rar4, rar5])
    async def test_one_volume_of_several_is_refused_rather_than_cut(
        self, desk: Desk, tmp_path: Path, write: Callable[..., bytes]
    ) -> None:
        (tmp_path / "a.part1.rar").write_bytes(write(PLAIN, volume=1))

        with pytest.raises(ContentError, match="one of several volumes") as caught:
            await desk.receive(tmp_path / "a.part1.rar")

        assert caught.value.code is Code.CONTENT_ARCHIVE_UNSUPPORTED

    @pytest.mark.parametrize("write", [rar4, rar5, None])
    async def test_a_file_that_belies_its_checksum_is_refused(
        self, desk: Desk, tmp_path: Path, write: Callable[[Mapping[str, bytes]], bytes] | None
    ) -> None:
        path = tmp_path / "a"
        files = {"one": b"the content", "two": b"more"}
        path.write_bytes(write(files) if write else make_zip(path, files, zipfile.ZIP_STORED).read_bytes())
        path.write_bytes(path.read_bytes().replace(b"the content", b"THE content"))

        error = await desk.refused(path)

        assert error.code == Code.CONTENT_ARCHIVE_CORRUPT

    @pytest.mark.tool
    @pytest.mark.parametrize("options", [("-t7z",), ("-t7z", "-mhe=on"), ("-tzip",), ("-tzip", "-mem=AES256")])
    async def test_an_encrypted_archive_asks_for_its_password(
        self, desk: Desk, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        error = await desk.refused(await make_with_7z(desk.pool, tmp_path, "a.x", *options, "-psecret"))

        assert error.code == Code.CONTENT_ARCHIVE_ENCRYPTED
        assert "password" in error.detail

    async def test_what_no_program_can_read_is_unsupported(self, desk: Desk, tmp_path: Path) -> None:
        path = make_zip(tmp_path / "a.zip", {"a": b"content", "b": b""}, zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        data[8:10] = data[data.index(b"PK\x01\x02") + 10 :][:2] = struct.pack("<H", 77)
        data[data.index(b"PK\x01\x02") + 10 : data.index(b"PK\x01\x02") + 12] = struct.pack("<H", 77)
        path.write_bytes(data)

        error = await desk.refused(path)

        assert error.code == Code.CONTENT_ARCHIVE_UNSUPPORTED

    @given(data=st.data())
    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_damaged_archive_ends_in_words_never_in_a_traceback(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path_factory.mktemp("damaged")
        form, archive = data.draw(
            st.sampled_from(
                [
                    ("zip", make_zip(folder / "a").read_bytes()),
                    ("tar", make_tar(folder / "b", plain_members()).read_bytes()),
                    ("rar", rar4(PLAIN)),
                    ("rar5", rar5(PLAIN)),
                ]
            )
        )
        raw = bytearray(archive)
        for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
            raw[at] = data.draw(st.integers(0, 255))
        (folder / "archive").write_bytes(raw)
        (folder / "into").mkdir()

        code = unpack_main(unpack_arguments(folder, form))

        answer = capsys.readouterr().out
        assert (code == 0) == answer.startswith('{"entries"')
        assert {"archive", "a", "b", "into", "listing"} >= {path.name for path in folder.iterdir()}


def unpack_arguments(folder: Path, form: str) -> list[str]:
    options = ["--format", form, "--filter", "none", "--algorithm", "sha256", "--max-entries", "1000"]
    options += [
        "--max-bytes",
        "10000000",
        "--max-ratio",
        "1000",
        "--ratio-from-bytes",
        "10000000",
        "--max-depth",
        "100",
    ]
    return [*options, str(folder / "archive"), str(folder / "into"), str(folder / "listing")]


def limits() -> Limits:
    return Limits(
        max_entries=10_000,
        max_bytes=10**9,
        max_ratio=10**9,
        ratio_from_bytes=0,
        max_depth=200,
        archive_bytes=1,
    )


PARTS = st.sampled_from([b"a", b"b", b"..", b".", b"", b"c\x00", b"\xff", b"C:", b"\\", b"link"]) | st.binary(
    max_size=6
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map(b"/".join)
ENTRIES = st.lists(st.tuples(st.sampled_from(["file", "directory", "symlink", "hard"]), PATHS, PATHS), max_size=12)


class WithoutSevenZip(Pool):
    """A pool on a machine where the 7z program is not installed."""

    def which(self, name: str) -> str | None:
        return None if name in {"7z", "7zz"} else super().which(name)


class TestPrograms:
    @pytest.mark.tool
    async def test_a_7z_archive_is_unpacked_also_without_its_program(self, desk: Desk, tmp_path: Path) -> None:
        archive = await make_with_7z(desk.pool, tmp_path, "a.7z")
        async with WithoutSevenZip(ToolSettings(), scratch=tmp_path) as desk.pool:
            await desk.receive(archive)

        assert desk.there() == PLAIN

    @pytest.mark.tool
    @pytest.mark.parametrize("options", [(), ("-mhe=on",)])
    async def test_it_then_asks_for_the_password_too(
        self, desk: Desk, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        archive = await make_with_7z(desk.pool, tmp_path, "a.7z", "-psecret", *options)
        async with WithoutSevenZip(ToolSettings(), scratch=tmp_path) as desk.pool:
            error = await desk.refused(archive)

        assert error.code == Code.CONTENT_ARCHIVE_ENCRYPTED
        assert "password" in error.detail

    @pytest.mark.tool
    async def test_what_needs_the_program_is_unsupported_without_it(self, desk: Desk, tmp_path: Path) -> None:
        files = {"a": random.Random(3).randbytes(9000) * 2, "b": b""}
        archive = await make_with_7z(desk.pool, tmp_path, "a.zip", "-tzip", "-mm=Deflate64", files=files)
        async with WithoutSevenZip(ToolSettings(), scratch=tmp_path) as desk.pool:
            error = await desk.refused(archive)

        assert error.code == Code.CONTENT_ARCHIVE_UNSUPPORTED

    @pytest.mark.tool
    @pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
    async def test_a_link_out_of_a_7z_archive_is_refused(self, desk: Desk, tmp_path: Path, target: str) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "link").symlink_to(target)

        error = await desk.refused(await make_with_7z(desk.pool, tmp_path, "a.7z", "-snl"))

        assert error.code == Code.CONTENT_PATH_TRAVERSAL
        assert str(tmp_path) not in error.detail + repr(error.violations)

    @pytest.mark.tool
    async def test_links_and_empty_folders_of_a_7z_archive_are_received(self, desk: Desk, tmp_path: Path) -> None:
        (tmp_path / "tree" / "empty").mkdir(parents=True)
        (tmp_path / "tree" / "link").symlink_to("readme.txt")

        received = {
            one.path: one for one in await desk.receive(await make_with_7z(desk.pool, tmp_path, "a.7z", "-snl"))
        }

        assert desk.there() == {**PLAIN, "link": b"hello"}
        assert received["link"].note is not None
        assert received["empty"].directory

    def test_an_archive_that_kills_what_reads_it_is_damaged(self) -> None:
        run = Run(
            argv=("unpack",),
            exit_code=None,
            signal=11,
            stopped=Stop.NO,
            stdout=b"",
            stderr_tail="Segmentation fault",
            seconds=0.1,
        )

        with pytest.raises(ContentError) as caught:
            _answer(run)

        assert caught.value.code == Code.CONTENT_ARCHIVE_CORRUPT
        assert caught.value.tool is not None
        assert (caught.value.tool.signal, caught.value.stderr_tail) == (11, "Segmentation fault")

    async def test_an_archive_that_needs_too_much_memory_says_so(self, desk: Desk, tmp_path: Path) -> None:
        info, _ = member("a")
        info.pax_headers = {"comment": "x" * 200_000_000}
        make_tar(tmp_path / "a.tar", [(info, b"")])
        async with Pool(ToolSettings(memory_bytes=256 * 2**20), scratch=tmp_path) as desk.pool:
            error = await desk.refused(tmp_path / "a.tar")

        assert error.code == Code.TOOL_KILLED_MEMORY


def take(taker: Taker, entries: Sequence[tuple[str, bytes, bytes]]) -> None:
    """Give the entries of an archive to a writer, or to what lists as one would write."""
    for kind, name, target in entries:
        parts = taker.admit(name)
        if parts is None:
            continue
        if kind == "file":
            taker.file(parts, [memoryview(b"new")], size_bytes=3, mtime_ns=None)
        elif kind == "directory":
            taker.directory(parts)
        elif kind == "symlink":
            taker.symlink(parts, target)
        else:
            taker.hard_link(parts, target)


class TestNothingIsEverWrittenOutside:
    @given(entries=ENTRIES)
    @hypothesis_settings(max_examples=300, deadline=None)
    def test_whatever_the_names_are(
        self, entries: list[tuple[str, bytes, bytes]], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("writer")
        into = folder / "x" / "into"
        into.mkdir(parents=True)
        (folder / "x" / "secret").write_bytes(b"secret")
        writer = Writer(os.fsencode(into), limits=limits(), algorithm="sha256")
        take(writer, entries)
        try:
            writer.finish()
        except ContentError:
            pass
        else:
            out = io.StringIO()
            writer.listing(out)
            told = out.getvalue().count("\n") - out.getvalue().count('"o":true')
            assert told == sum(len(names) + len(folders) for _, folders, names in os.walk(os.fsencode(into)))

        assert [path.name for path in folder.iterdir()] == ["x"]
        assert {path.name for path in (folder / "x").iterdir()} == {"into", "secret"}
        assert (folder / "x" / "secret").read_bytes() == b"secret"
        for path in into.rglob("*"):
            assert not path.is_symlink()
            assert path.is_dir() or path.read_bytes() == b"new"

    @given(raw=PATHS)
    def test_a_name_that_passes_stays_below(self, raw: bytes) -> None:
        try:
            parts = split(raw)
        except NameRefused:
            event("refused")
            return

        assert {b"", b".", b".."}.isdisjoint(parts)
        assert not any(b"/" in part or b"\0" in part for part in parts)
        assert not raw.startswith(b"/")

    @given(
        links=st.dictionaries(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(tuple), PATHS)
    )
    def test_following_links_ends_and_stays_below(self, links: dict[tuple[bytes, ...], bytes]) -> None:
        for link in links:
            try:
                to = follow(link, links)
            except LinkRefused:
                continue

            assert b".." not in to
            assert to not in links


@pytest.mark.parametrize("program", ["unpack", "lister"])
def test_the_process_that_reads_an_archive_starts_without_our_settings(program: str) -> None:
    """They, and what they are made of, take longer to load than most archives to unpack."""
    code = f"import sys, ingestd.sources.{program}; print({{'pydantic', 'ingestd.config'}} & {{*sys.modules}})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "set()" == done.stdout.strip()
