from __future__ import annotations

import csv
import io
import tempfile
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import Violation
from ingestd.metadata.rights import COLUMNS, Doubt, RightsTable
from ingestd.oais import NOWHERE, RightsClaim
from ingestd.premis import (
    DocumentationIdentifier,
    Restriction,
    RightsBasis,
    RightsGranted,
    RightsStatement,
    with_all_acts,
)

RIGHT: Mapping[str, str] = {
    "file": "objects/a.txt",
    "basis": "copyright",
    "status": "copyrighted",
    "jurisdiction": "gb",
    "grant_act": "disseminate",
    "grant_restriction": "allow",
}


def table(tmp_path: Path, *rows: Mapping[str, str], strict: bool = False, encoding: str = "utf-8") -> RightsTable:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "rights.csv").write_bytes(text.getvalue().encode(encoding))
    return RightsTable(path=tmp_path / "rights.csv", strict=strict)


def claims(read: RightsTable) -> list[RightsClaim]:
    return [item for item in read.rows() if isinstance(item, RightsClaim)]


def faults(read: RightsTable) -> list[tuple[str, str]]:
    return [
        (item.path.removeprefix("metadata/rights.csv"), item.rule)
        for item in read.rows()
        if isinstance(item, Violation)
    ]


def doubts(read: RightsTable) -> list[tuple[str, str]]:
    return [
        (item.violation.path.removeprefix("metadata/rights.csv"), item.violation.rule)
        for item in read.rows()
        if isinstance(item, Doubt)
    ]


def test_all_columns_of_a_row_are_read(tmp_path: Path) -> None:
    row = {
        **RIGHT,
        "determination_date": "2011-01-01",
        "start_date": "2011",
        "end_date": "Open",
        "note": "A note",
        "grant_restriction": "DISALLOW",
        "grant_start_date": "2011/01/31",
        "grant_end_date": "open",
        "grant_note": "Reading room",
        "doc_id_type": "URL",
        "doc_id_value": "https://example.org/1",
        "doc_id_role": "source",
    }
    (claim,) = claims(table(tmp_path, row, strict=True))

    assert ("objects/a.txt",) == tuple(claim.paths)
    assert claim.statement == RightsStatement(
        object=NOWHERE,
        basis=RightsBasis.COPYRIGHT,
        status="copyrighted",
        jurisdiction="gb",
        determination_date="2011-01-01",
        start="2011",
        end="OPEN",
        notes=["A note"],
        documentation=[DocumentationIdentifier(type="URL", value="https://example.org/1", role="source")],
        granted=[
            RightsGranted(
                act="disseminate",
                restrictions=[Restriction.DISALLOW],
                start="2011-01-31",
                end="OPEN",
                notes=["Reading room"],
            )
        ],
    )


def test_rows_of_the_same_basis_are_one_statement_with_several_acts(tmp_path: Path) -> None:
    rows = [RIGHT, {**RIGHT, "grant_act": "use"}, {**RIGHT, "status": "public domain"}, {**RIGHT, "basis": "policy"}]
    found = with_all_acts(claim.statement for claim in claims(table(tmp_path, *rows)))

    assert [["disseminate", "use"], ["disseminate"], ["disseminate"]] == [[a.act for a in s.granted] for s in found]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_names_and_notes_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (claim,) = claims(table(tmp_path, {**RIGHT, "file": "./objects/été.txt", "note": "à voir"}, encoding=encoding))

    assert ("objects/été.txt", ["à voir"]) == (claim.paths[0], claim.statement.notes)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"file": ""}, (":2:1", "file")),
        ({"basis": "copywrong"}, (":2:2", "basis")),
        ({"grant_restriction": "perhaps"}, (":2:6", "grant_restriction")),
        ({"grant_restriction": "", "grant_start_date": "2011"}, (":2:6", "grant_restriction")),
    ],
)
def test_what_cannot_be_read_is_said_with_line_and_column(
    tmp_path: Path, change: Mapping[str, str], place: tuple[str, str]
) -> None:
    assert [place] == faults(table(tmp_path, {**RIGHT, **change}))
    assert [] == claims(table(tmp_path, {**RIGHT, **change}))


def test_a_column_that_nobody_knows_and_one_that_is_missing_are_said(tmp_path: Path) -> None:
    (tmp_path / "rights.csv").write_text("file,bases\na,b\n")

    assert [(":1:2", "header"), (":1:3", "header")] == faults(RightsTable(path=tmp_path / "rights.csv"))


DOUBTS: Sequence[tuple[Mapping[str, str], tuple[str, str]]] = [
    ({"status": ""}, (":2:3", "status")),
    ({"jurisdiction": ""}, (":2:4", "jurisdiction")),
    ({"basis": "statute", "status": ""}, (":2:1", "citation")),
    ({"terms": "All"}, (":2:7", "terms")),
    ({"grant_act": ""}, (":2:5", "grant_act")),
    ({"grant_restriction": ""}, (":2:6", "grant_restriction")),
    ({"doc_id_type": "URL"}, (":2:1", "doc_id_value")),
    ({"start_date": "spring"}, (":2:7", "start_date")),
    ({"start_date": "open"}, (":2:7", "start_date")),
    ({"start_date": "2011", "end_date": "2010-12-31"}, (":2:8", "end_date")),
]


@pytest.mark.parametrize(("change", "place"), DOUBTS)
def test_what_would_be_lost_or_written_half_is_a_doubt_and_strictly_an_error(
    tmp_path: Path, change: Mapping[str, str], place: tuple[str, str]
) -> None:
    row = {**RIGHT, **change}

    assert [place] == doubts(table(tmp_path, row))
    assert [] == faults(table(tmp_path, row))
    assert 1 == len(claims(table(tmp_path, row)))
    assert [place] == faults(table(tmp_path, row, strict=True))


def test_a_file_basis_and_act_twice_is_wrong_only_strictly(tmp_path: Path) -> None:
    rows = [RIGHT, {**RIGHT, "grant_restriction": "disallow"}]

    assert [(":3:5", "duplicate")] == faults(table(tmp_path, *rows, strict=True))
    assert 2 == len(claims(table(tmp_path, *rows)))


def test_a_file_with_nothing_but_a_header_is_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "rights.csv").write_text("file,basis\n")

    assert [(":2", "rows")] == doubts(RightsTable(path=tmp_path / "rights.csv"))


def test_a_long_file_takes_no_memory(tmp_path: Path) -> None:
    line = "objects/{0:06d}.txt,copyright,copyrighted,gb,disseminate,Allow\n"
    with (tmp_path / "rights.csv").open("w") as out:
        out.write("file,basis,status,jurisdiction,grant_act,grant_restriction\n")
        out.writelines(line.format(number) for number in range(4_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in RightsTable(path=tmp_path / "rights.csv", strict=True).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (4_000, True) == (count, peak < 2**20)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20).map(str.strip)
WORDS = TEXT.filter(bool)
DATES = st.sampled_from(["", "1999", "2001-02", "2010-03-04"])


@st.composite
def statements(draw: st.DrawFn) -> RightsStatement:
    basis = draw(st.sampled_from(RightsBasis))
    grounded = basis in {RightsBasis.COPYRIGHT, RightsBasis.STATUTE}
    fields: dict[str, Any] = {
        "jurisdiction": draw(WORDS) if grounded else "",
        "determination_date": draw(DATES) if grounded else "",
        "status": draw(WORDS) if basis is RightsBasis.COPYRIGHT else "",
        "citation": draw(WORDS) if basis is RightsBasis.STATUTE else "",
        "terms": draw(TEXT) if basis is RightsBasis.LICENSE else "",
    }
    act = RightsGranted(
        act=draw(WORDS),
        restrictions=[draw(st.sampled_from(Restriction))],
        start=draw(DATES),
        end=draw(st.sampled_from(["", "OPEN", "2020"])),
        notes=draw(st.lists(WORDS, max_size=1)),
    )
    return RightsStatement(
        object=NOWHERE,
        basis=basis,
        start=draw(DATES),
        end=draw(st.sampled_from(["", "OPEN", "2020"])),
        notes=draw(st.lists(WORDS, max_size=1)),
        documentation=draw(
            st.lists(st.builds(DocumentationIdentifier, type=WORDS, value=WORDS, role=TEXT), max_size=1)
        ),
        granted=draw(st.sampled_from([[], [act]])),
        **fields,
    )


def row_of(said: RightsStatement) -> dict[str, str]:
    doc = said.documentation[0] if said.documentation else DocumentationIdentifier(type="", value="")
    act = said.granted[0] if said.granted else RightsGranted(act="")
    values = [
        *("objects/a", said.basis, said.status, said.determination_date, said.jurisdiction, said.start, said.end),
        *(said.terms, said.citation, "".join(said.notes), act.act, "".join(act.restrictions), act.start, act.end),
        *("".join(act.notes), doc.type, doc.value, doc.role),
    ]
    return dict(zip(COLUMNS, values, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(statements(), min_size=1, max_size=4))
def test_rights_that_are_written_as_rows_are_read_back(said: list[RightsStatement]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = claims(table(Path(folder), *map(row_of, said)))

    assert said == [claim.statement for claim in read]
