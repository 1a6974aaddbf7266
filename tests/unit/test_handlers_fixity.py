from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.fixity import verify_checksum_manifests
from ingestd.handlers.transfer import remove_hidden_files_and_directories
from ingestd.oais import Facts, MoreDigest
from ingestd.premis import EventOutcome
from tests.steps import Bench, file_id

OBJECTS = {"objects/a b.txt": b"A", "objects/d/b": b"BB"}


def line(content: bytes, path: str, algorithm: str = "md5", between: str = "  ") -> bytes:
    return f"{hashlib.new(algorithm, content).hexdigest()}{between}{path}\n".encode()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
async def test_a_checksum_file_that_is_right_is_told_of_each_file(bench: Bench, algorithm: str) -> None:
    lines = line(b"A", "a b.txt", algorithm) + line(b"BB", "d/b", algorithm)
    await bench.receive({**OBJECTS, f"metadata/checksum.{algorithm}": lines})

    await bench.run(verify_checksum_manifests)
    await bench.run(verify_checksum_manifests)

    told = await bench.journal.events([file_id(path) for path in OBJECTS])
    for path, content in OBJECTS.items():
        (event,) = told[file_id(path)]
        assert (EventOutcome.PASS, hashlib.new(algorithm, content).hexdigest()) == (event.outcome, event.note)


@pytest.mark.parametrize(
    "lines",
    [
        line(b"A", "a b.txt", between=" *") + line(b"BB", "d/b", between=" *"),
        line(b"A", "./a b.txt") + line(b"BB", "./d/b"),
        line(b"A", "../objects/a b.txt") + line(b"BB", "objects/d/b"),
        b"\xef\xbb\xbf" + (line(b"A", "a b.txt") + b"\n" + line(b"BB", "d/b")).replace(b"\n", b"\r\n"),
        line(b"A", "a b.txt").upper().replace(b"A B.TXT", b"a b.txt") + line(b"BB", "d/b", between="\t"),
    ],
)
async def test_checksum_files_are_read_as_people_and_programs_write_them(bench: Bench, lines: bytes) -> None:
    await bench.receive({**OBJECTS, "metadata/checksum.md5": lines})

    await bench.run(verify_checksum_manifests)


async def test_names_that_md5sum_escapes_are_read(bench: Bench) -> None:
    lines = b"\\" + line(b"A", r"new\nline\\") + b"\\" + line(b"B", r"re\rturn")
    await bench.receive({"objects/new\nline\\": b"A", "objects/re\rturn": b"B", "metadata/checksum.md5": lines})

    await bench.run(verify_checksum_manifests)


async def test_everything_wrong_with_checksum_files_is_told_at_once(bench: Bench) -> None:
    md5 = line(b"X", "a b.txt") + line(b"1", "gone") + line(b"2", "../../etc/passwd") + b"what?\n"
    sha1 = line(b"A", "a b.txt", "sha1") + line(b"BB", "d/b", "md5")
    await bench.receive({**OBJECTS, "metadata/checksum.md5": md5, "metadata/checksum.sha1": sha1})

    with pytest.raises(ContentError) as raised:
        await bench.run(verify_checksum_manifests)

    assert raised.value.code is Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH
    assert [
        ("a b.txt", "md5"),
        ("gone", "present"),
        ("metadata/checksum.md5:3", "content.path_traversal"),
        ("metadata/checksum.md5:4", "line"),
        ("objects/d/b", "listed"),
        ("metadata/checksum.sha1:2", "digest"),
        ("objects/d/b", "listed"),
    ] == [(violation.path, violation.rule) for violation in raised.value.violations]


async def test_a_file_that_was_removed_since_may_be_named(bench: Bench) -> None:
    lines = line(b"A", ".hidden") + line(b"B", "b") + line(b"C", ".unknown")
    await bench.receive(
        {"objects/.hidden": b"A", "objects/b": b"B", "objects/.unknown": b"C", "metadata/checksum.md5": lines}
    )
    known = MoreDigest(file=file_id("objects/.hidden"), algorithm="md5", value=lines.decode()[:32])
    await bench.journal.record(Facts(digests=[known]))
    await bench.run(remove_hidden_files_and_directories)

    outcomes = await bench.run(verify_checksum_manifests)

    warnings = [warning for outcome in outcomes for warning in outcome.facts.warnings]
    assert [("content.checksum_unverified", ".unknown")] == [(warning.code, warning.path) for warning in warnings]


async def test_digests_of_the_receiving_read_are_believed(bench: Bench) -> None:
    await bench.receive({"objects/a": b"A", "metadata/checksum.md5": line(b"A", "a")})
    (bench.root / "objects/a").write_bytes(b"not read")
    await bench.journal.record(
        Facts(digests=[MoreDigest(file=file_id("objects/a"), algorithm="md5", value=hashlib.md5(b"A").hexdigest())])
    )

    await bench.run(verify_checksum_manifests)
