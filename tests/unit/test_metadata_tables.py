from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import Code, ContentError, Violation
from ingestd.metadata.tables import CELL_CHARACTERS, LISTED, Row, Shape, Table, invalid, read

SHAPE = Shape(name="metadata/t.csv", example="file,note / a.txt,x", first=("file",), required=("note",))


def table(tmp_path: Path, content: bytes, shape: Shape = SHAPE) -> Table:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    return Table(path=path, shape=shape)


def rows(tmp_path: Path, content: bytes, shape: Shape = SHAPE) -> list[tuple[int, list[str]]]:
    return [(row.line, list(row.cells)) for row in read(table(tmp_path, content, shape).path, shape)]


def faults(tmp_path: Path, content: bytes, shape: Shape = SHAPE) -> list[tuple[str, str]]:
    found = table(tmp_path, content, shape).faults()
    return [(fault.path.removeprefix("metadata/t.csv"), fault.rule) for fault in found]


def test_rows_have_the_number_of_the_line_they_begin_on(tmp_path: Path) -> None:
    content = b'\n File , Note \n\na.txt,"1\n2\n3"\n\n  b.txt  ,  x y  \n,,\n"c\xc3\xa9"\n'

    assert rows(tmp_path, content) == [(4, ["a.txt", "1\n2\n3"]), (8, ["b.txt", "x y"]), (10, ["cé", ""])]


def test_cells_are_found_by_their_heading(tmp_path: Path) -> None:
    row = next(read(table(tmp_path, b"file,note\na,b\n").path, SHAPE))

    assert (row.get("note"), row.get("none"), row.column("note"), row.column("none")) == ("b", "", 2, 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_utf_and_every_line_end_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["file,note", "ä 名.txt,größer", "b,c"])
    made = table(tmp_path, text.encode(encoding))

    assert [tuple(row.cells) for row in made.rows() if isinstance(row, Row)] == [("ä 名.txt", "größer"), ("b", "c")]
    assert not made.warnings()


@pytest.mark.parametrize(("more", "encoding"), [(b"\x80", "cp1252"), (b"\x81", "latin-1")])
def test_what_is_no_utf_is_read_as_western_with_a_warning(tmp_path: Path, more: bytes, encoding: str) -> None:
    made = table(tmp_path, b"file,note\nx,y\ncaf\xe9.txt," + more + b"\n")
    (_, second) = [row for row in made.rows() if isinstance(row, Row)]
    (warning,) = made.warnings()

    assert second.cells == ["café.txt", more.decode(encoding).strip()]
    assert ("content.metadata_encoding", "metadata/t.csv") == (warning.code, warning.path)
    assert f"line 3 is not UTF-8 (byte 0xe9): the file was read as {encoding}" in warning.detail


def test_a_name_may_be_composed_or_not_or_be_the_bytes_that_stand_there(tmp_path: Path) -> None:
    western = table(tmp_path, b"file,note\ncaf\xe9,\n")
    utf = table(tmp_path, "file,note\ncafé,\n".encode())

    assert western.names("café") == ["café", "cafe\u0301", "caf\udce9"]
    assert utf.names("café") == ["café", "cafe\u0301"]
    assert "a/b" in utf.names("a\\b")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", [(":1:1", "header")]),
        (b"\n\n", [(":1:1", "header")]),
        (b"note,file\na,b\n", [(":1:1", "header")]),
        (b"file;note\na;b\n", [(":1:1", "header")]),
        (b"file,\n", [(":1:2", "header")]),
        (b"file,,note,Note\n", [(":1:2", "header"), (":1:4", "header")]),
        (b"file,note\na,b,c\nd\ne,f,,,\ng,h,i\n", [(":2:3", "ragged_row"), (":5:3", "ragged_row")]),
        (b"file,note\na,b\0c\nd,e\n", [(":2:2", "nul")]),
        (b'file,note\na,b\nc,"d" e\n', [(":3", "csv")]),
        (b'file,note\na,"b\nc,d\n', [(":2", "csv")]),
        (b"file,note\na," + b"x" * (CELL_CHARACTERS + 1), [(":2", "csv")]),
        (b'file,note\na,"' + b"x\n" * CELL_CHARACTERS, [(":2", "csv")]),
        (b"\xef\xbb\xbffile,note\na,b\nc,\xff\n", [(":3", "encoding")]),
        ("file,note\na,b\n".encode("utf-16") + b"\xff", [(":3", "encoding")]),
        (b"file,note\n" + b"a,b,c\n" * (LISTED + 5), [(f":{n}:3", "ragged_row") for n in range(2, LISTED + 2)]),
    ],
)
def test_a_fault_says_where_it_is(tmp_path: Path, content: bytes, found: list[tuple[str, str]]) -> None:
    assert faults(tmp_path, content) == found


def test_a_row_without_end_does_not_fill_memory(tmp_path: Path) -> None:
    content = b"file,note\n" + b'"' + (b"x" * 1000 + b'","\n') * 40_000

    tracemalloc.start()
    assert faults(tmp_path, content, Shape(name="metadata/t.csv", example="", repeatable=True)) == [(":2", "csv")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 120 * 2**20


def test_columns_that_are_not_known_are_named(tmp_path: Path) -> None:
    shape = Shape(name="metadata/t.csv", example="", allowed=("file", "note"))
    (fault,) = table(tmp_path, b"file,notes\n", shape).faults()

    assert (fault.path, fault.expected, fault.actual) == ("metadata/t.csv:1:2", "one of file, note", "notes")


def test_a_table_without_a_header_has_rows_from_its_first_line(tmp_path: Path) -> None:
    shape = Shape(name="metadata/t.csv", example="a.txt,A label", header=False, columns=2)

    assert rows(tmp_path, b"a.txt,A label\nb.txt\n", shape) == [(1, ["a.txt", "A label"]), (2, ["b.txt", ""])]
    assert faults(tmp_path, b"a,b,c\n", shape) == [(":1:3", "ragged_row")]


def test_the_error_names_the_file_and_every_fault(tmp_path: Path) -> None:
    found = table(tmp_path, b"file,note\na,b,c\n").faults()
    error = invalid("metadata/t.csv", found)

    assert (error.code, error.detail) == (Code.CONTENT_METADATA_INVALID, "metadata/t.csv has 1 fault")
    assert error.violations == tuple(found)
    with pytest.raises(ContentError):
        rows(tmp_path, b"file,note\na,b,c\n")


@given(
    content=st.binary(max_size=300)
    | st.text(alphabet='a,";\n\r\0é\ud800', max_size=80).map(lambda s: s.encode("utf-8", "replace"))
)
@settings(max_examples=300, deadline=None)
def test_anything_gives_rows_or_a_located_fault(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    shape = Shape(name="t.csv", example="file", repeatable=True)
    made = table(tmp_path_factory.mktemp("any"), content, shape)

    for item in made.rows():
        if isinstance(item, Violation):
            assert item.path.startswith("t.csv:")
            assert item.expected
        else:
            assert len(item.cells) == len(made.header)
            assert item.line >= 1


CELLS = st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


@given(
    written=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=150, deadline=None)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[str]], encoding: str, end: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["file", "note"], *written])
    folder = tmp_path_factory.mktemp("any")
    told = rows(folder, out.getvalue().encode(encoding))

    expected = [[cell.strip() for cell in row] for row in written if any(cell.strip() for cell in row)]
    assert [cells for _, cells in told] == expected


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    made = table(tmp_path, b"file,note\n" + b"".join(b"objects/%d,%s\n" % (n, b"x" * 400) for n in range(20_000)))

    tracemalloc.start()
    assert sum(1 for _ in made.rows()) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**20
