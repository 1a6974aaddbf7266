"""What goes in is found again: random transfers through the whole ingest, read back from the AIP; and by metsrw."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import metsrw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ingestd
from ingestd import aip
from ingestd.aip.reading import Reading, opened
from ingestd.config import Settings
from ingestd.ingest import Ingest
from ingestd.mets import ReadAgent, ReadDescription, ReadEntity, ReadFile, read, write
from ingestd.oais import unescape_name
from tests.acceptance.aips import stored_path
from tests.acceptance.program import NO_DERIVATIVES
from tests.mets_samples import AT, a_package, a_rich_history

pytestmark = [pytest.mark.tool]

Tree: TypeAlias = "dict[bytes, bytes | Tree]"

PIECES = [
    b"a", b"B", b"7", b" ", b"-", b"_", b"%", b"%41", b"&", b"<", b'"', b"'", b"\\", b"\n", b"\x01", b"$(x)", b"*", b",",
    b"\xc3\xa9", b"e\xcc\x81", b"\xe6\x97\xa5", b"\xff", b"\xf0\x9f\x93\xb7",
]  # fmt: skip
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(b"".join)
CONTENTS = st.binary(max_size=40)
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=4),
    lambda inner: st.dictionaries(NAMES, CONTENTS | inner | st.just({}), min_size=1, max_size=4),
    max_leaves=8,
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


def files_in(tree: Tree, above: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    for name, what in tree.items():
        if isinstance(what, bytes):
            yield above + name, what
        else:
            yield from files_in(what, above + name + b"/")


def folders_in(tree: Tree, above: bytes = b"") -> Iterator[bytes]:
    for name, what in tree.items():
        if not isinstance(what, bytes):
            yield above + name
            yield from folders_in(what, above + name + b"/")


def lay_out(tree: Tree, into: Path, titles: Mapping[str, str]) -> None:
    into.mkdir()
    for folder in folders_in(tree):
        (into / os.fsdecode(folder)).mkdir(parents=True, exist_ok=True)
    for path, content in files_in(tree):
        (into / os.fsdecode(path)).write_bytes(content)
    if titles:
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["filename", "dc.title", "shelf"])
        rows.writerows([f"objects/{path}", title, f"shelf {title}"] for path, title in titles.items())
        (into / "metadata").mkdir()
        (into / "metadata/metadata.csv").write_text(text.getvalue(), newline="")


def is_plain(path: bytes) -> bool:
    """Names that a CSV in UTF-8 can hold as they are."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() for char in text) and not any(part != part.strip() for part in text.split("/"))


def received(reading: Reading) -> dict[bytes, tuple[str, str, set[str]]]:
    """Originals by the path they were received with: current path, digest, types of events."""
    sql = "SELECT number, path, original_name, digest FROM file JOIN fixity ON file = number WHERE use = 'original'"
    found = {}
    for number, path, name, digest in list(reading.facts.rows(sql)):
        events = {row[0] for row in reading.facts.rows("SELECT type FROM event WHERE file = ?", (number,))}
        original = os.fsencode(unescape_name(name.removeprefix("%transferDirectory%objects/")))
        found[original] = (os.fsdecode(path), digest, events)
    return found


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service for all transfers: to start it takes longer than to ingest."""

    folder: Path
    runner: asyncio.Runner
    ingest: Ingest


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("round-trip")
    with asyncio.Runner() as runner:
        opening = ingestd.open(Settings(data_dir=folder / "data", processing=NO_DERIVATIVES))
        yield Service(folder=folder, runner=runner, ingest=runner.run(opening.__aenter__()))
        runner.run(opening.__aexit__(None, None, None))


@given(data=st.data(), tree=TREES.filter(lambda tree: any(True for _ in files_in(tree))))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_of_a_transfer_is_lost_on_its_way_into_an_aip_and_back(
    service: Service, data: st.DataObject, tree: Tree
) -> None:
    plain = [path.decode() for path, _ in files_in(tree) if is_plain(path)]
    titles = data.draw(st.dictionaries(st.sampled_from(plain), WORDS, max_size=3)) if plain else {}

    service.runner.run(round_trip(service.ingest, service.folder / uuid.uuid4().hex, tree, titles))


async def round_trip(ingest: Ingest, folder: Path, tree: Tree, titles: Mapping[str, str]) -> None:
    lay_out(tree, folder, titles)
    result = await ingest.preserve(folder, name="in")
    path = stored_path(result.model_dump(mode="json"))

    proved = await aip.verify(path)

    assert [] == list(proved.findings)
    async with opened(path) as reading:
        found = received(reading)
        expected = dict(files_in(tree))
        assert expected.keys() == found.keys()
        for name, content in expected.items():
            _, digest, events = found[name]
            assert hashlib.sha256(content).hexdigest() == digest
            assert {"ingestion", "message digest calculation", "format identification"} <= events
        entities = {
            os.fsencode(unescape_name(row[0])) for row in reading.facts.rows("SELECT original_name FROM entity")
        }
        assert {b"%transferDirectory%objects/" + name + b"/" for name in folders_in(tree)} <= entities
        for text, title in titles.items():
            place = found[text.encode()][0].removeprefix("data/")
            said = reading.facts.rows("SELECT pairs FROM description WHERE path = ?", (os.fsencode(place),))
            pairs = "".join(row[0] for row in said)
            assert f'["dc.title", {as_json(title)}]' in pairs
            assert f'["shelf", {as_json(f"shelf {title}")}]' in pairs
        name, content = next(iter(expected.items()))
        out = io.BytesIO()
        await aip.extract(path, found[name][0], out)
        assert content == out.getvalue()


def as_json(text: str) -> str:
    return json.dumps(text)


async def test_metsrw_finds_all_that_our_reader_finds(tmp_path: Path) -> None:
    path = tmp_path / "METS.xml"
    await write(a_rich_history(), a_package(), path, created_at=AT, document_empty_directories=True)
    records = [record async for window in read(path) for record in window]
    files = {record.path: record for record in records if isinstance(record, ReadFile)}
    mets = metsrw.METSDocument.fromfile(str(path))
    entries: dict[str, Any] = {entry.path: entry for entry in mets.all_files() if entry.type == "Item"}

    assert files.keys() == entries.keys()
    for place, entry in entries.items():
        file = files[place]
        (described,) = entry.get_premis_objects()
        assert (file.identifier, file.use) == (entry.file_uuid, entry.use)
        assert (file.original_name, file.size_bytes) == (described.findtext("original_name"), int(described.size))
        if file.digests:
            assert dict(file.digests) == {described.message_digest_algorithm: described.message_digest}
        events = entry.get_premis_events()
        assert {(e.identifier, e.type, e.at) for e in file.events} == {
            (event.identifier_value, event.event_type, event.event_date_time) for event in events
        }
        derived = entry.derived_from.file_uuid if entry.derived_from else ""
        assert file.derived_from == derived
    agents = {a.agent_name for entry in entries.values() for a in entry.get_premis_agents()}
    assert {record.name for record in records if isinstance(record, ReadAgent)} == agents
    said = [record for record in records if isinstance(record, ReadDescription | ReadEntity)]
    assert len(said) == len(mets.tree.findall("{http://www.loc.gov/METS/}dmdSec"))
