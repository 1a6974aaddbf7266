"""What JHOVE prints of many files, taken apart: as JHOVE 1.28 wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from ingestd.tools.jhove import reports, told, trouble

PRINTED = b"""<?xml version="1.0" encoding="UTF-8"?>
<jhove name="Jhove" release="1.28.0" date="2023-07-15">
 <repInfo uri="/scratch/jhove-x/0.pdf">
  <status>Well-Formed and valid</status>
 </repInfo>
  <repInfo uri="/scratch/jhove-x/1.pdf">
   <status>Not well-formed</status>
   <messages>
    <message offset="600" severity="error" id="PDF-HUL-138">No PDF trailer</message>
   </messages>
  </repInfo>
   <repInfo uri="/scratch/jhove-x/2">
    <status>Unknown</status>
    <messages>
     <message severity="error" id="JHOVE-CORE-1">File not found</message>
    </messages>
   </repInfo>
    <repInfo uri="/scratch/jhove-x/10.pdf">
     <status>Well-Formed"""


def test_each_file_that_jhove_came_to_the_end_of_has_its_own_report() -> None:
    found = reports(PRINTED)

    assert sorted(found) == [0, 1]
    assert b"No PDF trailer" in found[1]
    assert b"No PDF trailer" not in found[0]


def test_what_jhove_says_of_itself_is_trouble_and_no_report() -> None:
    assert trouble(PRINTED) == "File not found"
    assert trouble(b"<jhove></jhove>") == ""


def test_a_report_that_quotes_the_form_of_a_report_stays_one() -> None:
    printed = b'<repInfo uri="/s/0.tif"><status>Unknown</status>&lt;repInfo uri="/s/1.tif"&gt;</repInfo>'

    assert reports(printed) == {0: printed}


def test_hostile_names_are_told_as_plain_links_that_are_gone_afterwards(tmp_path: Path) -> None:
    paths = [tmp_path / os.fsdecode(name) for name in (b'-m "a & b".pdf', b"n\xff.tif", b"x.no way", b"y.\n")]
    for path in paths:
        path.write_text(path.name.encode("utf-8", "surrogateescape").hex())

    with told(paths, tmp_path) as links:
        assert [link.name for link in links] == ["0.pdf", "1.tif", "2", "3"]
        assert [link.read_text() for link in links] == [path.read_text() for path in paths]

    assert not any(link.is_symlink() for link in links)
