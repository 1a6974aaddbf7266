"""Pointer files as metsrw, the schemas and Archivematica's rules for them read them."""

from __future__ import annotations

import importlib.resources
import uuid
from dataclasses import replace
from pathlib import Path

import metsrw
import pytest
from lxml import (  # type: ignore[attr-defined]
    etree,
    isoschematron,
)

from ingestd.errors import ContentError
from ingestd.mets import Pointer, Transform, read_transforms, replicated, validate, write_pointer
from ingestd.premis import Agent, AgentType, Digest, DigestAlgorithm, Event, EventOutcome, EventType, Format, Program
from tests.mets_samples import AGENTS, AT

ID = uuid.UUID("0b9f2f1e-8c1d-5a53-9f5e-6a2f6d0c7b11")
KEY = "0123456789ABCDEF0123456789ABCDEF01234567"
UNPACK = Transform(kind="decompression", algorithm="lzma", order="1")
POINTER = Pointer(
    package=ID,
    name=f"letters_(2)-{ID}.7z",
    label=f"letters_(2)-{ID}",
    size_bytes=17,
    digest=Digest(algorithm=DigestAlgorithm.SHA256, value="ab" * 32, calculated_at=AT),
    format=Format(name="7Zip", puid="fmt/484"),
    program="7-Zip",
    version="26.02",
    packed_at=AT,
    transforms=[UNPACK],
    events=[
        Event(
            object=ID,
            type=EventType.COMPRESSION,
            at=AT,
            detail=Program("7-Zip", "26.02").words(algorithm="lzma"),
            id=ID,
        ),
        Event(object=ID, type=EventType.FIXITY_CHECK, at=AT, detail="all", outcome=EventOutcome.PASS, note="2 & 3"),
    ],
    agents=AGENTS,
    created_at=AT,
)
LOCKED = replace(
    POINTER,
    name=f"{POINTER.name}.gpg",
    keys=[KEY],
    transforms=[
        Transform(kind="decryption", algorithm="GPG", order="1", key=KEY),
        replace(UNPACK, order="2"),
    ],
    events=[
        *POINTER.events,
        Event(
            object=ID, type=EventType.ENCRYPTION, at=AT, detail=Program("GPG", "2.4").words(key=KEY), note="before: x"
        ),
    ],
)


async def faults(pointer: bytes, tmp_path: Path) -> list[str]:
    path = tmp_path / "pointer.xml"
    path.write_bytes(pointer)
    rules = importlib.resources.files("metsrw") / "resources" / "archivematica_mets_pointer_file_schematron.xml"
    schematron = isoschematron.Schematron(etree.fromstring(rules.read_bytes()), store_report=True)
    schematron.validate(etree.fromstring(pointer))
    failed = schematron.validation_report.iter("{http://purl.oclc.org/dsdl/svrl}text")
    return [str(text) for text in await validate(path, schematron=False)] + [
        "".join(text.itertext()) for text in failed
    ]


@pytest.mark.parametrize("said", [POINTER, LOCKED, replace(POINTER, format=Format(name="Zstandard"), version="")])
async def test_a_pointer_file_is_valid_by_the_schemas_and_by_archivematicas_rules(
    said: Pointer, tmp_path: Path
) -> None:
    assert [] == await faults(write_pointer(said), tmp_path)


def test_metsrw_finds_all_of_it_again() -> None:
    document = metsrw.METSDocument.fromstring(write_pointer(LOCKED))

    (entry,) = document.all_files()
    (found,) = entry.get_premis_objects()
    compression, _, encryption = entry.get_premis_events()
    assert (LOCKED.name, "Archival Information Package") == (entry.path, entry.use)
    assert ("2", "17", "ab" * 32) == (found.composition_level, found.size, found.message_digest)
    assert ("fmt/484", "GPG", "All content") == (
        found.format_registry_key,
        found.inhibitor_type,
        found.inhibitor_target,
    )
    assert ("lzma", "26.02", "7-Zip") == compression.compression_details
    assert ("GPG", "2.4", KEY) == encryption.encryption_details
    assert [agent.name for agent in AGENTS] == [agent.name for agent in entry.get_premis_agents()]
    assert [one["TYPE"] for one in entry.transform_files] == ["decryption", "decompression"]


def test_our_own_reader_finds_how_to_undo_the_packing(tmp_path: Path) -> None:
    (tmp_path / "pointer.xml").write_bytes(write_pointer(LOCKED))

    assert list(LOCKED.transforms) == list(read_transforms(tmp_path / "pointer.xml"))


def test_the_same_words_give_the_same_bytes() -> None:
    assert write_pointer(POINTER) == write_pointer(POINTER)


async def test_a_replica_says_that_it_is_one_and_loses_nothing(tmp_path: Path) -> None:
    pointer = replicated(write_pointer(LOCKED), ID, source="here", target="there")

    (entry,) = metsrw.METSDocument.fromstring(pointer).all_files()
    assert [EventType.COMPRESSION, EventType.FIXITY_CHECK, EventType.ENCRYPTION, EventType.REPLICATION] == [
        event.type for event in entry.get_premis_events()
    ]
    assert [] == await faults(pointer, tmp_path)
    assert len(AGENTS) == len(entry.get_premis_agents())


@pytest.mark.parametrize("text", [b"", b"<mets", b"<mets/>", b'<mets:mets xmlns:mets="http://www.loc.gov/METS/"/>'])
def test_a_pointer_file_that_is_damaged_is_told(text: bytes) -> None:
    with pytest.raises(ContentError, match=f"pointer.{ID}.xml on here cannot be read"):
        replicated(text, ID, source="here", target="there")


async def test_words_that_xml_cannot_hold_are_written_byte_by_byte(tmp_path: Path) -> None:
    odd = Agent(identifier_type="requester", identifier="a\x00<b>\ud800", name="n\x1b", type=AgentType.REQUESTER)

    pointer = write_pointer(replace(POINTER, agents=[*AGENTS[:2], odd]))

    assert b"a%00&lt;b&gt;%ED%A0%80" in pointer
    assert [] == await faults(pointer, tmp_path)
