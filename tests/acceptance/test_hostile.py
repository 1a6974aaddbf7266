"""Hostile content through whole ingests, in one service that must outlive it all: kept whole, or refused with a reason."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

import ingestd
from ingestd.config import Settings
from ingestd.ingest import Ingest
from ingestd.messages import EventData, Outcome
from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.program import NO_DERIVATIVES
from tests.unit.test_sources_archives import rar4, rar5

pytestmark = [pytest.mark.tool, pytest.mark.asyncio(loop_scope="module")]

SECRET = "t0p-s3cr3t-of-this-server"
NAMES = (
    "-rf", "--output=x", "a\nb", "a\x01\x1b[31mb", "\u00e9.txt", "e\u0301.txt", "A.TXT", "a.txt", "x" * 255,
    os.fsdecode(b"n\xff\xfe.jpg"), "$(touch pwned)", "`id`;'\"", "trail. ", "%SIPUUID%.txt", "%inputFile%",
    "\u202egpj.exe", "&lt;<b>]]>.xml", "/".join(["d"] * 100) + "/f", "-", "~root", "CON", "a\\b",
)  # fmt: skip
BOMB = "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
DOCUMENTS = {
    "bomb": f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{BOMB}]><ROOT>&i;</ROOT>',
    "file": '<!DOCTYPE x [<!ENTITY s SYSTEM "SECRET">]><ROOT>&s;</ROOT>',
    "parameter": '<!DOCTYPE x [<!ENTITY % p SYSTEM "SECRET"> %p;]><ROOT>x</ROOT>',
    "dtd": '<!DOCTYPE x SYSTEM "SECRET"><ROOT>x</ROOT>',
}
READ_WITH_THE_PACKAGE = {
    "metadata/premis.xml": "premis",
    "metadata/transfer_metadata.xml": "fields",
    "metadata/a.xml": "dc",
    "metadata/submissionDocumentation/mets.xml": "mets",
    "mets.xml": "mets",
    "object.xml": "x",
    "p.svg": "svg",
}
READ_BEFORE = {"metadata/mets_structmap.xml": "mets", "processingMCP.xml": "processingMCP"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Ingest, Path]]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = Settings(
        data_dir=folder / "data",
        clamav={"scanner": "off"},
        processing={**NO_DERIVATIVES, "validate_formats": False, "aip_compression_algorithm": "tar"},
        unpack={"max_entries": 2000, "ratio_from_bytes": 1_000_000, "max_nesting": 2},
    )
    async with ingestd.open(settings) as ingest:
        yield ingest, folder


def tar(path: Path, members: Sequence[tuple[str, bytes, str]]) -> Path:
    with tarfile.open(path, "w", errors="surrogateescape") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            content = os.fsencode(name) if kind == tarfile.REGTYPE else b""
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


async def test_every_name_is_kept_and_every_byte(service: tuple[Ingest, Path], tmp_path: Path) -> None:
    ingest, _ = service
    source = tar(tmp_path / "names.tar", [(name, tarfile.REGTYPE, "") for name in NAMES])

    result = await ingest.preserve(source)

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    assert result.counts is not None
    assert len(NAMES) == result.counts.originals
    aip = open_aip(stored_path(result.model_dump(mode="json")), tmp_path / "opened")
    contents = sorted((aip.folder / "data" / path).read_bytes() for path in aip.of("original"))
    assert sorted(map(os.fsencode, NAMES)) == contents


@pytest.mark.parametrize(
    ("name", "kind", "link", "code"),
    [
        ("../../evil", tarfile.REGTYPE, "", "content.path_traversal"),
        ("/etc/evil", tarfile.REGTYPE, "", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "/etc/passwd", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "../../x", "content.path_traversal"),
        ("link", tarfile.LNKTYPE, "/etc/passwd", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "link", "content.structure_invalid"),
        ("device", tarfile.CHRTYPE, "", "content.structure_invalid"),
        ("device", tarfile.BLKTYPE, "", "content.structure_invalid"),
        ("fifo", tarfile.FIFOTYPE, "", "content.structure_invalid"),
    ],
)
async def test_what_leads_out_or_is_no_file_is_refused_and_named(
    service: tuple[Ingest, Path], tmp_path: Path, name: str, kind: bytes, link: str, code: str
) -> None:
    ingest, folder = service
    before = stored_below(folder / "data" / "aips")

    result = await ingest.preserve(tar(tmp_path / "a.tar", [("ok", tarfile.REGTYPE, ""), (name, kind, link)]))

    assert result.outcome in {Outcome.REJECTED, Outcome.FAILED}
    assert result.error is not None
    assert code == result.error.code
    assert Path(name).name in str([violation.model_dump() for violation in result.error.violations])
    assert before == stored_below(folder / "data" / "aips")


Entry = tuple[str, bytes] | tuple[str, bytes, int]


def zipped(*entries: Entry, raw: Mapping[bytes, bytes] | None = None) -> bytes:
    """A zip of names as they are given, with a file's mode where one is said; `raw` changes bytes of it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *mode in entries:
            info = zipfile.ZipInfo()
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    content = out.getvalue()
    for before, after in (raw or {}).items():
        content = content.replace(before, after)
    return content


def seven_zipped(folder: Path, contents: Mapping[bytes, bytes], *renamed: str, link: str = "") -> bytes:
    """A 7z of files, which are then renamed in it."""
    for name, content in contents.items():
        place = os.path.join(os.fsencode(folder), b"within", name)  # noqa: PTH118  a name of any bytes
        Path(os.fsdecode(place)).parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(place)).write_bytes(content)
    if link:
        (folder / "within" / "link").symlink_to(link)
    subprocess.run(["7z", "a", "-snl", "../a.7z", "."], cwd=folder / "within", check=True, capture_output=True)
    if renamed:
        subprocess.run(["7z", "rn", "a.7z", *renamed], cwd=folder, check=True, capture_output=True)
    return (folder / "a.7z").read_bytes()


def tarred(*entries: tuple[str, bytes, str], mode: str = "w", size: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for name, kind, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"\0" * size))
    return out.getvalue()


def overlapping() -> bytes:
    """A zip whose directory names one file two hundred times."""
    one = zipped(("a", b"\0" * 100_000))
    start, end = one.find(b"PK\1\2"), one.rfind(b"PK\5\6")
    entries = b"".join(one[start : end - 1] + bytes([48 + number]) for number in range(60))
    return one[:start] + entries + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 60, 60, len(entries), start, 0)


def nested(depth: int) -> bytes:
    content = b"innermost"
    for level in range(depth):
        content = zipped((f"{level}.zip" if level else "a.txt", content))
    return content


OK: Entry = ("ok", b"1")
TRAVERSAL, COLLISION, BOMB_CODE = "content.path_traversal", "content.name_collision", "content.archive_bomb"
STRUCTURE = "content.structure_invalid"
ARCHIVES: Mapping[str, tuple[str, Callable[[Path], bytes]]] = {
    "up.zip": (TRAVERSAL, lambda _: zipped(OK, ("../../evil", b"2"))),
    "absolute.zip": (TRAVERSAL, lambda _: zipped(OK, ("/etc/evil", b"2"))),
    "drive.zip": (TRAVERSAL, lambda _: zipped(OK, ("C:\\evil", b"2"))),
    "nameless.zip": (TRAVERSAL, lambda _: zipped(OK, ("", b"2"))),
    "nul.zip": (TRAVERSAL, lambda _: zipped(OK, ("a_b", b"1"), raw={b"a_b": b"a\0b"})),
    "link.zip": (TRAVERSAL, lambda _: zipped(OK, ("l", b"/etc/passwd", stat.S_IFLNK | 0o777))),
    "through.zip": (TRAVERSAL, lambda _: zipped(("l", b"../..", stat.S_IFLNK | 0o777), ("l/evil", b"2"))),
    "fifo.zip": (STRUCTURE, lambda _: zipped(OK, ("f", b"", stat.S_IFIFO | 0o666))),
    "device.zip": (STRUCTURE, lambda _: zipped(OK, ("d", b"", stat.S_IFCHR | 0o666))),
    "256.zip": (STRUCTURE, lambda _: zipped(OK, ("x" * 256, b"1"))),
    "depth.zip": (STRUCTURE, lambda _: zipped(OK, ("d/" * 2000 + "f", b"1"))),
    "twice.zip": (COLLISION, lambda _: zipped(("aa", b"1"), ("bb", b"2"), raw={b"bb": b"aa"})),
    "both.zip": (COLLISION, lambda _: zipped(("a", b"1"), ("a/b", b"2"))),
    "ratio.zip": (BOMB_CODE, lambda _: zipped(("a", b"\0" * 5_000_000))),
    "count.zip": (BOMB_CODE, lambda _: zipped(*((f"{number}", b"") for number in range(2100)))),
    "overlap.zip": ("content.archive_", lambda _: overlapping()),
    "up.tar": (TRAVERSAL, lambda _: tarred(("ok", tarfile.REGTYPE, ""), ("../evil", tarfile.REGTYPE, ""))),
    "through.tar": (TRAVERSAL, lambda _: tarred(("l", tarfile.SYMTYPE, "/tmp"), ("l/evil", tarfile.REGTYPE, ""))),
    "hard.tar": (TRAVERSAL, lambda _: tarred(("h", tarfile.LNKTYPE, "../../etc/passwd"))),
    "ratio.tar.bz2": (BOMB_CODE, lambda _: tarred(("a", tarfile.REGTYPE, ""), mode="w:bz2", size=50_000_000)),
    "up.7z": (TRAVERSAL, lambda folder: seven_zipped(folder, {b"a": b"1"}, "a", "../../evil")),
    "absolute.7z": (TRAVERSAL, lambda folder: seven_zipped(folder, {b"a": b"1"}, "a", "/etc/evil")),
    "link.7z": (TRAVERSAL, lambda folder: seven_zipped(folder, {b"a": b"1"}, link="/etc/passwd")),
    "up4.rar": (TRAVERSAL, lambda _: rar4({"ok": b"1", "../../evil": b"2"})),
    "up5.rar": (TRAVERSAL, lambda _: rar5({"ok": b"1", "../../evil": b"2"})),
}


@pytest.mark.parametrize("name", ARCHIVES)
async def test_a_hostile_archive_is_refused_and_says_why(
    service: tuple[Ingest, Path], tmp_path: Path, name: str
) -> None:
    ingest, folder = service
    code, make = ARCHIVES[name]
    (tmp_path / name).write_bytes(make(tmp_path))
    before = stored_below(folder / "data" / "aips")

    result = await ingest.preserve(tmp_path / name)

    assert result.outcome in {Outcome.REJECTED, Outcome.FAILED}
    assert result.error is not None
    assert code in str(result.error.model_dump())
    assert result.error.remediation
    assert before == stored_below(folder / "data" / "aips")


async def test_hostile_archives_within_a_transfer_are_kept_as_they_are_each_with_its_warning(
    service: tuple[Ingest, Path], tmp_path: Path
) -> None:
    ingest, _ = service
    source = tmp_path / "source"
    source.mkdir()
    within = ("up.zip", "device.zip", "both.zip", "ratio.zip", "overlap.zip", "hard.tar", "up.7z", "up5.rar")
    for name in within:
        (tmp_path / f"of-{name}").mkdir()
        (source / name).write_bytes(ARCHIVES[name][1](tmp_path / f"of-{name}"))
    (source / "nested.zip").write_bytes(nested(4))

    result = await ingest.preserve(source)

    assert Outcome.SUCCEEDED_WITH_WARNINGS is result.outcome, result.error
    aip = open_aip(stored_path(result.model_dump(mode="json")), tmp_path / "opened")
    kept = {Path(path).name: aip.folder / "data" / path for path in aip.of("original")}
    for path in source.iterdir():
        assert path.read_bytes() == kept[path.name].read_bytes()
    told = (aip.folder / "data" / "logs" / "warnings.csv").read_text(encoding="utf-8")
    assert [] == [name for name in (*within, "2.zip") if f"/{name}" not in told]
    assert not any("evil" in path or "passwd" in path for path in aip.use)


async def test_every_name_and_byte_within_archives_of_any_kind_is_kept(
    service: tuple[Ingest, Path], tmp_path: Path
) -> None:
    ingest, _ = service
    names = {os.fsencode(name): os.fsencode(name) for name in NAMES if name != "-"}
    plain = [name.decode() for name in names if name.isascii() and b"\\" not in name]
    source = tmp_path / "source"
    source.mkdir()
    tar(source / "a.tar", [(os.fsdecode(name), tarfile.REGTYPE, "") for name in names])
    (source / "b.7z").write_bytes(seven_zipped(tmp_path / "of-7z", names))
    (source / "c.zip").write_bytes(
        zipped(*((name, name.encode()) for name in plain), ("n__.jpg", b"raw"), raw={b"n__.jpg": b"n\xff\xfe.jpg"})
    )
    (source / "d.rar").write_bytes(rar5({name: name.encode() for name in plain}))

    result = await ingest.preserve(source)

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    aip = open_aip(stored_path(result.model_dump(mode="json")), tmp_path / "opened")
    found = sorted((aip.folder / "data" / path).read_bytes() for path in aip.of("original"))
    packed = [path.read_bytes() for path in source.iterdir()]
    assert sorted([*packed, *names, *names, *(name.encode() for name in plain * 2), b"raw"]) == found


def written(folder: Path, paths: dict[str, str], document: str) -> Path:
    secret = folder / "secret"
    secret.write_text(SECRET)
    source = folder / "source"
    for path, root in paths.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(document.replace("ROOT", root).replace("SECRET", secret.as_uri()))
    (source / "file.txt").write_text("x")
    (source / "metadata" / "source-metadata.csv").write_text("filename,metadata,type\nobjects/file.txt,a.xml,dc\n")
    return source


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_no_document_of_a_package_is_expanded_or_fetches_anything(
    service: tuple[Ingest, Path], tmp_path: Path, document: str
) -> None:
    ingest, folder = service

    result = await ingest.preserve(written(tmp_path, READ_WITH_THE_PACKAGE, DOCUMENTS[document]))

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    assert nowhere(result, folder)
    aip = stored_path(result.model_dump(mode="json"))
    assert aip.stat().st_size < 5_000_000


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_a_document_that_a_package_is_judged_by_rejects_it(
    service: tuple[Ingest, Path], tmp_path: Path, document: str
) -> None:
    ingest, folder = service
    source = written(tmp_path, {**READ_BEFORE, "metadata/a.xml": "dc"}, DOCUMENTS[document])

    result = await ingest.preserve(source)

    assert result.outcome in {Outcome.REJECTED, Outcome.FAILED}
    assert nowhere(result, folder)


def nowhere(result: EventData, folder: Path) -> bool:
    """Whether the secret is nowhere below the data folder, nor in what is told."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return SECRET not in result.model_dump_json() and not any(SECRET.encode() in path.read_bytes() for path in files)
