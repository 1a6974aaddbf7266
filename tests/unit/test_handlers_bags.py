from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from ingestd.bag import BAG
from ingestd.errors import Code, ContentError, RequestError, Violation
from ingestd.handlers.bags import fetch_bag_files, lay_out_bag
from ingestd.handlers.fixity import verify_bag
from ingestd.handlers.transfer import restructure_for_compliance, verify_transfer_compliance
from ingestd.job import Services
from ingestd.oais import FileUse, Section, TransferType
from ingestd.premis import EventOutcome, EventType
from tests.steps import Bench, a_package, services

PAYLOAD = {"data/a.txt": b"A", "data/d/b.txt": b"BB"}
DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def manifest(contents: Mapping[str, bytes], algorithm: str = "md5", end: str = "\n") -> bytes:
    return b"".join(
        f"{hashlib.new(algorithm, content).hexdigest()}  ".encode() + os.fsencode(path) + end.encode()
        for path, content in contents.items()
    )


def a_bag(payload: Mapping[str, bytes] = PAYLOAD, **changed: bytes) -> dict[str, bytes]:
    """A valid bag; `changed` are tag files by name, with `_` for what a Python name cannot hold."""
    made = {"bagit.txt": DECLARATION, "manifest-md5.txt": manifest(payload), **payload}
    return made | {name.replace("__", "-").replace("_txt", ".txt"): content for name, content in changed.items()}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def violations(bench: Bench) -> tuple[Violation, ...]:
    with pytest.raises(ContentError) as raised:
        await bench.run(verify_bag)
    assert raised.value.code is Code.CONTENT_BAG_INVALID
    return raised.value.violations


# --- verification


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3256", "blake2b"])
async def test_a_bag_of_every_algorithm_is_proved_and_told(bench: Bench, algorithm: str) -> None:
    name = {"sha3256": "sha3_256"}.get(algorithm, algorithm)
    bag = a_bag()
    del bag["manifest-md5.txt"]
    await bench.receive({**bag, f"manifest-{algorithm}.txt": manifest(PAYLOAD, name)})

    await bench.run(verify_bag)

    for path, content in PAYLOAD.items():
        file = await bench.journal.file_at(path)
        assert file is not None
        (event,) = (await bench.journal.events([file.id]))[file.id]
        assert (EventType.FIXITY_CHECK, EventOutcome.CLEAN) == (event.type, event.outcome)
        assert hashlib.new(name, content).hexdigest() == event.note
        assert f'manifest="manifest-{algorithm}.txt"' in event.detail


@pytest.mark.parametrize("version", ["0.93", "0.94", "0.95", "0.96", "0.97", "1.0"])
async def test_every_version_of_the_specification_is_read(bench: Bench, version: str) -> None:
    await bench.receive(a_bag(bagit_txt=DECLARATION.replace(b"1.0", version.encode())))

    await bench.run(verify_bag)

    assert (await bench.journal.facts())[BAG] == "verified"


async def test_everything_wrong_with_a_bag_is_told_at_once(bench: Bench) -> None:
    lines = manifest({"data/a.txt": b"other", "data/gone": b"1", "data/../../etc/passwd": b"2", "/etc/shadow": b"3"})
    tags = manifest({"bagit.txt": b"not this", "gone.txt": b""})
    await bench.receive(
        a_bag(
            manifest__md5_txt=lines + b"nonsense\nabc  data/d/b.txt\n",
            tagmanifest__md5_txt=tags,
            bag__info_txt=b"Payload-Oxum: 9.9\nno colon here\n",
            fetch_txt=b"http://example.org/x 3 data/x\nhttp://example.org\n",
        )
    )

    found = await violations(bench)

    assert {
        ("data/a.txt", "md5"),
        ("data/gone", "present"),
        ("manifest-md5.txt:3", "content.path_traversal"),
        ("manifest-md5.txt:4", "content.path_traversal"),
        ("manifest-md5.txt:5", "line"),
        ("manifest-md5.txt:6", "digest"),
        ("data/d/b.txt", "listed"),
        ("bagit.txt", "md5"),
        ("gone.txt", "present"),
        ("bag-info.txt", "Payload-Oxum"),
        ("bag-info.txt:2", "line"),
        ("data/x", "fetch"),
        ("fetch.txt:2", "line"),
    } == {(violation.path, violation.rule) for violation in found}


@pytest.mark.parametrize(
    ("declaration", "rule"),
    [
        (b"BagIt-Version: 2.0\nTag-File-Character-Encoding: UTF-8\n", "version"),
        (b"BagIt-Version: 1.0\n", "encoding"),
        (b"\xef\xbb\xbf" + DECLARATION, "byte_order_mark"),
        (b"BagIt-Version: 1.0\nTag-File-Character-Encoding: \xff\n", "encoding"),
    ],
)
async def test_a_declaration_that_is_wrong_is_told(bench: Bench, declaration: bytes, rule: str) -> None:
    await bench.receive(a_bag(bagit_txt=declaration))

    assert ("bagit.txt", rule) in {(violation.path, violation.rule) for violation in await violations(bench)}


async def test_a_bag_without_payload_or_known_manifest_is_refused(bench: Bench) -> None:
    await bench.receive({"bagit.txt": DECLARATION, "manifest-crc32.txt": b"0  data/a\n"})

    assert {"payload", "manifest"} == {violation.rule for violation in await violations(bench)}


async def test_a_manifest_of_an_unknown_algorithm_beside_a_known_one_is_a_warning(bench: Bench) -> None:
    await bench.receive(a_bag(manifest__crc32_txt=b"0  data/a.txt\n"))

    (outcome,) = (await bench.run(verify_bag))[-1:]

    assert [("content.bag_manifest_unread", "manifest-crc32.txt")] == [(w.code, w.path) for w in outcome.facts.warnings]


async def test_in_1_0_every_manifest_names_every_file_and_before_one_was_enough(bench: Bench) -> None:
    await bench.receive(a_bag(manifest__sha1_txt=manifest({"data/a.txt": b"A"}, "sha1")))

    (violation,) = await violations(bench)
    assert ("data/d/b.txt", "listed", "a line in manifest-sha1.txt") == (
        violation.path,
        violation.rule,
        violation.expected,
    )
    (bench.root / "bagit.txt").write_bytes(DECLARATION.replace(b"1.0", b"0.97"))
    await bench.run(verify_bag)


async def test_names_in_manifests_are_found_as_every_software_writes_them(bench: Bench) -> None:
    composed = unicodedata.normalize("NFC", "data/é")
    payload = {
        "data/line\nend": b"1",
        "data/return\rend": b"2",
        "data/100%25": b"3",
        "data/50%": b"4",
        "data/%0A": b"5",
        unicodedata.normalize("NFD", composed): b"6",
        "data/ lead": b"7",
        "data/*star": b"8",
    }
    written = {
        "data/line%0Aend": b"1",
        "data/return%0dend": b"2",
        "data/100%2525": b"3",  # as RFC 8493 has it
        "data/50%": b"4",  # as older software has it
        "data/%250A": b"5",
        composed: b"6",
        "./data/ lead": b"7",
    }
    lines = manifest(written, end="\r\n") + hashlib.md5(b"8", usedforsecurity=False).hexdigest().encode()
    await bench.receive(a_bag(payload, manifest__md5_txt=b"\xef\xbb\xbf" + lines + b" *data/*star"))

    await bench.run(verify_bag)


async def test_tag_files_are_read_in_the_encoding_that_the_bag_declares(bench: Bench) -> None:
    lines = manifest({"data/é": b"1"}).decode().encode("latin-1")
    declaration = DECLARATION.replace(b"UTF-8", b"ISO-8859-1")
    await bench.receive(a_bag({"data/é": b"1"}, bagit_txt=declaration, manifest__md5_txt=lines))

    await bench.run(verify_bag)


async def test_a_name_that_is_not_of_the_encoding_is_told(bench: Bench) -> None:
    name = os.fsdecode(b"data/\xff")
    await bench.receive(a_bag({name: b"1"}))

    assert ("manifest-md5.txt:1", "encoding", "data/%FF") in {
        (v.path, v.rule, v.actual) for v in await violations(bench)
    }


@pytest.mark.parametrize("encoding", ["no-such", "zlib", "idna"])
async def test_an_encoding_that_is_none_is_told(bench: Bench, encoding: str) -> None:
    await bench.receive(a_bag(bagit_txt=DECLARATION.replace(b"UTF-8", encoding.encode())))

    assert "encoding" in {violation.rule for violation in await violations(bench)}


async def test_a_line_without_end_is_not_read_into_memory(bench: Bench) -> None:
    await bench.receive(a_bag(manifest__md5_txt=b"0" * 2**20))

    assert "line" in {violation.rule for violation in await violations(bench)}


async def test_thousands_of_faults_are_counted_and_the_first_are_listed(bench: Bench) -> None:
    await bench.receive(a_bag(manifest__md5_txt=manifest({f"data/{n}": b"" for n in range(3000)})))

    with pytest.raises(ContentError, match="3002 in all, the first 100") as raised:
        await bench.run(verify_bag)

    assert len(raised.value.violations) == 100


@pytest.mark.parametrize("stop_after", range(4))
async def test_verification_is_gone_on_with_after_a_kill(bench: Bench, stop_after: int) -> None:
    payload = {f"data/{n:04}": b"x" for n in range(600)}
    await bench.receive(a_bag(payload))
    await bench.run(verify_bag, stop_after=stop_after)

    await bench.run(verify_bag)

    told = await bench.journal.events([file.id for file in await bench.files(under="data", window=1000)])
    assert [1] * 600 == [len(events) for events in told.values()]


async def test_what_is_no_bag_is_left_alone(bench: Bench) -> None:
    contents = {"bagit.txt": b"notes about bags", "manifest-md5.txt": b"x", "a": b"1"}
    await bench.receive(contents)

    await bench.run(verify_bag)
    await bench.run(lay_out_bag)

    assert contents == bench.contents()


async def test_what_the_bag_says_of_itself_describes_the_package(bench: Bench) -> None:
    info = "Source-Organization: Archives\n  of é\nContact-Name: A\nContact-Name: B: C\n".encode()
    await bench.receive(a_bag(bag__info_txt=info))

    await bench.run(verify_bag)

    ((_, said),) = (await bench.journal.descriptions([bench.package.id]))[bench.package.id]
    assert (Section.SOURCE, "BagIt") == (said.section, said.kind)
    assert [("Source-Organization", "Archives of é"), ("Contact-Name", "A"), ("Contact-Name", "B: C")] == said.pairs


async def test_a_submitter_may_say_that_a_bag_is_none_or_must_be_one(bench: Bench) -> None:
    await bench.receive({"bagit.txt": DECLARATION, "data/a": b"1"})
    await bench.run(verify_bag, package=a_package(type=TransferType.STANDARD))
    (bench.root / "bagit.txt").unlink()

    with pytest.raises(ContentError, match="no bag"):
        await bench.run(verify_bag, package=a_package(type=TransferType.BAG))


# --- fetching


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server of what is in the folder `web`."""
    (tmp_path / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    make = functools.partial(Handler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetching(tmp_path: Path, **sources: object) -> Services:
    return services(tmp_path, sources={"fetch_txt": True, "hosts": ["127.0.0.1"], **sources})


async def test_what_a_bag_lacks_is_fetched_where_that_is_allowed(tmp_path: Path, bench: Bench, web: str) -> None:
    (tmp_path / "web" / "b").write_bytes(b"BB")
    bench.services = fetching(tmp_path)
    bag = a_bag(fetch_txt=f"{web}/b 2 data/d/b.txt\n{web}/b - data/../x\n{web}/b - data/a.txt\n".encode())
    del bag["data/d/b.txt"]
    await bench.receive(bag)

    await bench.run(fetch_bag_files)
    await bench.run(fetch_bag_files)

    assert {**bag, "data/d/b.txt": b"BB"} == bench.contents()
    assert sorted(bench.contents()) == await bench.paths()
    (violation,) = await violations(bench)
    assert "fetch.txt:2" == violation.path


async def test_nothing_is_fetched_from_where_sources_may_not_be(tmp_path: Path, bench: Bench, web: str) -> None:
    bench.services = fetching(tmp_path, hosts=[])
    bag = a_bag(fetch_txt=f"{web}/b 2 data/d/b.txt\n".encode())
    del bag["data/d/b.txt"]
    await bench.receive(bag)

    with pytest.raises(RequestError):
        await bench.run(fetch_bag_files)


# --- layout


async def laid_out(bench: Bench, contents: dict[str, bytes], stop_after: int | None = None) -> None:
    await bench.receive(contents)
    await bench.run(verify_bag)
    await bench.run(lay_out_bag, stop_after=stop_after)


async def test_the_payload_becomes_the_objects_and_the_tags_go_to_the_logs(bench: Bench) -> None:
    tag_files = {"dpn-tags/x.txt": b"1", "metadata/datacite.xml": b"2", "logs/BagIt/y": b"3", "objects/z": b"4"}

    await laid_out(bench, {**a_bag(bag__info_txt=b"Source-Organization: X\n"), **tag_files})
    await bench.run(restructure_for_compliance)
    await bench.run(verify_transfer_compliance)

    assert bench.on_disk() == await bench.paths()
    assert {
        "objects/a.txt",
        "objects/d/b.txt",
        "metadata/manifest-md5.txt",
        *(f"logs/BagIt-1/{name}" for name in ("bagit.txt", "bag-info.txt", *tag_files)),
    } == set(bench.on_disk())
    files = {file.path: file for file in await bench.files()}
    assert all(file.path == file.original for file in files.values())
    assert FileUse.ORIGINAL is files["objects/a.txt"].use
    assert FileUse.METADATA is files["metadata/manifest-md5.txt"].use is files["logs/BagIt-1/bagit.txt"].use


STANDARD = {
    "data/objects/a": b"1",
    "data/metadata/metadata.csv": b"2",
    "data/metadata/manifest-md5.txt": b"3",
    "data/logs/BagIt/l": b"4",
    "data/README": b"5",
    "data/data/x": b"6",
}


@pytest.mark.parametrize("stop_after", range(6))
async def test_a_payload_that_is_a_transfer_is_taken_as_one_also_after_a_kill(bench: Bench, stop_after: int) -> None:
    await laid_out(bench, a_bag(STANDARD), stop_after)

    await bench.run(lay_out_bag)
    await bench.run(lay_out_bag)
    await bench.run(restructure_for_compliance)
    await bench.run(verify_transfer_compliance)

    assert {
        "objects/a": b"1",
        "metadata/metadata.csv": b"2",
        "metadata/manifest-md5.txt": b"3",
        "logs/BagIt/l": b"4",
        "objects/README": b"5",
        "objects/data/x": b"6",
        "logs/BagIt-1/bagit.txt": DECLARATION,
        "logs/BagIt-1/manifest-md5.txt": manifest(STANDARD),
    } == bench.contents()
    assert bench.on_disk() == await bench.paths()


async def test_two_things_for_one_place_are_refused(bench: Bench) -> None:
    with pytest.raises(ContentError) as raised:
        await laid_out(bench, a_bag({"data/objects/a": b"1", "data/a": b"2"}))

    assert raised.value.code is Code.CONTENT_NAME_COLLISION
    assert ["data/a"] == [violation.path for violation in raised.value.violations]
