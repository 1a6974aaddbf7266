"""What DSpace, Dataverse and mail say should be there is looked for before anything is received."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingestd.errors import Code
from ingestd.metadata.dataverse import FILE
from tests.dspace_samples import CONTENTS, item, zipped
from tests.preflights import codes, look, rules, write
from tests.unit.test_handlers_dataverse import BUNDLE, a_dataset, a_file, a_transfer
from tests.unit.test_handlers_dspace import LIST, simple_item

LACKING = {name: content for name, content in item("ITEM@1-7").items() if not name.endswith("bitstream_1.pdf")}


@pytest.mark.parametrize("type_", ["auto", "dspace"])
async def test_bitstreams_that_a_dspace_export_lacks_are_told(tmp_path: Path, type_: str) -> None:
    good = await look(write(tmp_path / "good", item("ITEM@1-7")), type=type_)
    bad = await look(write(tmp_path / "bad", {**LACKING, **item("other")}), type=type_)

    assert [] == good.errors
    assert [Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH] == codes(bad)
    assert {("ITEM@1-7/bitstream_1.pdf", "present")} == rules(bad)


async def test_an_export_without_items_is_refused_unless_an_archive_may_hold_them(tmp_path: Path) -> None:
    none = await look(write(tmp_path / "none", {"a": "1"}), type="dspace")
    packed = await look(write(tmp_path / "packed", {"ITEM@1-7.zip": zipped()}), type="dspace")
    standard = await look(write(tmp_path / "lacking", LACKING), type="standard")

    assert [Code.CONTENT_STRUCTURE_INVALID] == codes(none)
    assert "mets.xml" in none.errors[0].remediation
    assert ([], []) == (packed.errors, standard.errors)
    assert "archives" in packed.limits[0]


async def test_a_mets_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    report = await look(write(tmp_path / "t", {**CONTENTS, "mets.xml": "<mets"}), type="dspace")

    assert {("mets.xml", "mets.xml")} == rules(report)


async def test_files_that_a_dataset_lacks_are_told(tmp_path: Path) -> None:
    whole = a_transfer(a_file("kept back.txt", b"", restricted=True))
    lacking = {
        **whole,
        FILE: a_dataset(a_file("read me.txt", b"read", "docs"), a_file("../out", b""), a_file("b", b"")),
    }
    good = await look(write(tmp_path / "good", whole), type="dataverse")
    bad = await look(write(tmp_path / "bad", lacking))

    assert [] == good.errors
    assert [Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH] == codes(bad)
    assert {("../out", "present"), ("b", "present")} == rules(bad)


async def test_a_table_may_be_in_its_zip(tmp_path: Path) -> None:
    files = {name: content for name, content in a_transfer().items() if name not in BUNDLE}
    without = await look(write(tmp_path / "without", files))
    zipped_ = await look(write(tmp_path / "zipped", {**files, "objects/survey.zip": b"PK"}))

    assert [Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH] == codes(without)
    assert [] == zipped_.errors


async def test_what_is_no_dataset_is_refused_where_one_was_promised(tmp_path: Path) -> None:
    none = await look(write(tmp_path / "none", {"a": "1"}), type="dataverse")
    other = write(tmp_path / "other", {"dataset.json": json.dumps([1])})

    assert [Code.CONTENT_STRUCTURE_INVALID] == codes(none)
    assert [Code.CONTENT_METADATA_INVALID] == codes(await look(other, type="dataverse"))
    assert [] == codes(await look(other))


async def test_mail_needs_a_maildir_and_its_hidden_folders_count(tmp_path: Path) -> None:
    mail = write(tmp_path / "mail", {"box/.Sent/cur/1": "From: a\n\nb", "box/.Sent/new/.keep": ""})
    none = write(tmp_path / "none", {"cur/1": "From: a\n\nb"})

    assert [] == codes(await look(mail, type="maildir"))
    assert [Code.CONTENT_STRUCTURE_INVALID] == codes(await look(none, type="maildir"))
    assert [Code.CONTENT_EMPTY] == codes(await look(mail))


async def test_what_an_item_in_the_simple_archive_format_lists_is_looked_for(tmp_path: Path) -> None:
    good = await look(write(tmp_path / "good", simple_item("item_000")), type="dspace")
    bad = await look(write(tmp_path / "bad", simple_item("item_000", f"{LIST}gone.tif\n")))

    assert [] == good.errors
    assert [Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH] == codes(bad)
    assert {("item_000/gone.tif", "present")} == rules(bad)
