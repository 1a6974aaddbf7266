"""Whatever comes from outside is read, or refused with words: no other exception, no hang, no memory that grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestd import aip
from ingestd.config import ClamAVSettings
from ingestd.errors import IngestError
from ingestd.metadata import mail
from ingestd.tools import xml as tools_xml
from ingestd.tools.clamav import Clamd, Verdict
from tests import aip_samples
from tests.outside import METS, PREMIS, READERS, outcome, unsound

PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"9" * 5000, b"1e999", b"NaN", b"&#xD800;", b"&e;",
    b"<!DOCTYPE a [<!ENTITY e 'x'>]>", b"<![CDATA[", b"<?xml version='1.0' encoding='idna'?>", b"<x>" * 300, b"\r",
    b"<?xml version='1.0' encoding='foo'?>", b" xmlns=''", b"%00", b'"', b",", b"\n", b"\x85", b"\xe2\x80\xa8", b"{", b"]",
    b"null", b"[" * 2000, b"../", b"0001-01-01T00:00:00+23:59", b"punycode", b"utf-7", b"+2AA-", b"undefined",
    b"=?utf-7?q?+2AA-?=", b"filename*=utf-7''+2AA-", b"e\xcc\x81", b"", b"",
]  # fmt: skip
ENCODINGS = ("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp1252")
SLOW = {"METS, validated": 8, "mets_structmap.xml": 8, "premis.xml": 20, "FPR dump": 20}
"""How often it is tried, where a schema or a registry is read each time."""


@st.composite
def spoilt(draw: st.DrawFn, right: bytes) -> bytes:
    """A right document with a few pieces out of place; what is added and what is left out."""
    content = bytearray(right)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 0, 1, 8, 64))))
        content[start:end] = draw(
            st.sampled_from(PIECES) | st.binary(max_size=8) | st.just(bytes(content[start:end]) * 3)
        )
    if draw(st.integers(0, 9)) == 0:
        return content.decode("utf-8", "replace").encode(draw(st.sampled_from(ENCODINGS)), "replace")
    return bytes(content)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside") / "x"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_anything_is_read_or_refused_with_words(name: str, place: Path) -> None:
    reader = READERS[name]

    @settings(max_examples=SLOW.get(name, 60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=spoilt(reader.right))
    def read(content: bytes) -> None:
        place.write_bytes(content)
        assert [] == list(unsound(outcome(reader, place)))

    read()


@pytest.fixture(scope="module")
def aips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = aip_samples.archivematica(tmp_path_factory.mktemp("aips"))
    return {form: aip_samples.packed(folder, form).read_bytes() for form in ("zip", "tar", "tar.gz", "7z")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "7z"])
def test_any_package_is_an_aip_with_findings_or_refused(form: str, aips: dict[str, bytes], place: Path) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=spoilt(aips[form]))
    def read(content: bytes) -> None:
        place.write_bytes(content)
        try:
            found: Any = asyncio.run(aip.verify(place))
            seen: Any = asyncio.run(aip.inspect(place))
        except IngestError as error:
            found, seen = error.violations, [error.detail, error.remediation]
        assert [] == [*unsound(found), *unsound(seen)]

    read()


# --- XML: what has entities, fetches, or grows -----------------------------------------------------------------------

SECRET = "t0p-s3cr3t-of-this-server"
XML = {name: reader for name, reader in READERS.items() if reader.is_xml}
BOMB = "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
DOCTYPES = {
    "billion laughs": f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{BOMB}]>',
    "external entity": '<!DOCTYPE x [<!ENTITY i SYSTEM "FILE">]>',
    "parameter entity": '<!DOCTYPE x [<!ENTITY % p SYSTEM "FILE"> %p;]>',
    "external DTD": '<!DOCTYPE x SYSTEM "FILE">',
    "public DTD": '<!DOCTYPE x PUBLIC "-//x" "FILE" [<!ATTLIST x a CDATA "FILE">]>',
}
INCLUDE = '<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="FILE" parse="text"/>'


def begun(right: bytes) -> tuple[str, str, str, str]:
    """A document taken apart: what stands before its first tag, that tag without `>`, what is within, and its end."""
    text = right.decode()
    start = next(at for at, sign in enumerate(text) if sign == "<" and text[at + 1].isalpha())
    end, last = text.index(">", start), text.rindex("</")
    return text[:start], text[start:end], text[end + 1 : last], text[last:]


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text(SECRET)
    return (tmp_path / "secret").as_uri()


@pytest.mark.parametrize("kind", DOCTYPES)
@pytest.mark.parametrize("name", XML)
def test_no_entity_is_expanded_and_nothing_is_fetched(name: str, kind: str, place: Path, secret: str) -> None:
    _, tag, inner, end = begun(XML[name].right)
    place.write_text(f"{DOCTYPES[kind]}{tag}>&i;{inner}{end}".replace("FILE", secret))

    said = str(outcome(XML[name], place))

    assert len(said) < 10_000
    assert SECRET not in said
    assert "aaaaaaaaaa" not in said


@pytest.mark.parametrize("name", XML)
def test_nothing_is_included(name: str, place: Path, secret: str) -> None:
    _, tag, inner, end = begun(XML[name].right)
    place.write_text(f"{tag}>{INCLUDE.replace('FILE', secret)}{inner}{end}")

    assert SECRET not in str(outcome(XML[name], place))


ATTRIBUTES = " ".join(f"a{number}='b'" for number in range(30_000))
NAMESPACES = " ".join(f"xmlns:n{number}='u'" for number in range(3000))
GROWING = {
    "deep": "TAG>" + "<x>" * 30_000 + "</x>" * 30_000 + "INNEREND",
    "deep, not closed": "TAG>" + "<x>" * 30_000,
    "a tag that does not end": "TAG" + " " * 1_200_000 + ">INNEREND",
    "a comment that does not end": "<!--" + "a" * 1_200_000,
    "a huge attribute": "TAG z='" + "a" * 1_200_000 + "'>INNEREND",
    "many attributes": f"TAG {ATTRIBUTES}>INNEREND",
    "many namespaces": f"TAG {NAMESPACES}>" + "<n2999:x/>" * 3000 + "INNEREND",
    "many elements": "TAG>" + "<x/>" * 60_000 + "INNEREND",
    "an unknown encoding": "<?xml version='1.0' encoding='none'?>TAG>INNEREND",
    "no encoding of text": "<?xml version='1.0' encoding='idna'?>TAG>INNEREND",
}


@pytest.mark.parametrize("kind", GROWING)
@pytest.mark.parametrize("name", XML)
def test_what_grows_is_read_in_time_or_refused(name: str, kind: str, place: Path) -> None:
    head, tag, inner, end = begun(XML[name].right)
    text = GROWING[kind].replace("TAG", tag).replace("INNER", inner).replace("END", end)
    place.write_text(text if "encoding" in kind else head + text)
    began = time.process_time()

    assert [] == list(unsound(outcome(XML[name], place)))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", ["premis.xml", "mets_structmap.xml", "METS", "METS, validated"])
def test_a_part_that_no_memory_should_hold_is_refused(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, tag, inner, end = begun(XML[name].right)
    place.write_text(f"{head}{tag}>{'<x/>' * 100_000}{inner}{end}")
    monkeypatch.setattr(tools_xml, "SECTION_SIGNS", 50_000)

    assert "too many elements" in str(outcome(XML[name], place)) or "not expected" in str(outcome(XML[name], place))


# --- what was found --------------------------------------------------------------------------------------------------


def read(name: str, place: Path, content: bytes) -> str:
    place.write_bytes(content)
    result = outcome(READERS[name], place)
    assert [] == list(unsound(result))
    return str(result)


def test_a_name_that_occurs_very_often_takes_no_more_than_its_time(place: Path) -> None:
    began = time.process_time()
    read("metadata.json", place, b'[{"filename": "a"' + b', "dc.title": "x"' * 150_000 + b"}]")

    assert time.process_time() - began < 8  # it took the square: minutes


@pytest.mark.parametrize("name", ["metadata.json", "identifiers.json", "dataset.json", "agents.json", "FPR dump"])
def test_half_a_surrogate_pair_is_no_text(name: str, place: Path) -> None:
    right = READERS[name].right.decode()

    assert "not_unicode" in read(name, place, right.replace("a", "\\ud800", 1).encode()) or "as JSON" in read(
        name, place, right.replace('"A"', '"\\ud800"', 1).encode()
    )


def test_a_size_of_thousands_of_digits_is_no_size(place: Path) -> None:
    assert "size_bytes=None" in read("METS", place, METS.replace(b"<size>", b"<size>" + b"9" * 5000, 1))


@pytest.mark.parametrize(
    "encoding", ["idna", "punycode", "unicode_escape", "undefined", "hex", "rot13", "utf-8.a", "x" * 99]
)
def test_what_is_no_encoding_of_text_is_none_of_a_bag(encoding: str, place: Path) -> None:
    right = READERS["bag"].right.replace(b"UTF-8", encoding.encode())

    assert "rule='encoding'" in read("bag", place, right)


def test_a_pointer_file_in_broken_utf_16_is_refused(place: Path) -> None:
    content = READERS["pointer"].right.decode().encode("utf-16")

    assert "cannot be read as a pointer file" in read("pointer", place, content[:120] + b"\xd8\x00" * 9 + content[120:])


@pytest.mark.parametrize("printed", [b"9" * 5000, b'{"eventOutcomeInformation": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_what_a_command_printed_is_an_outcome_or_none(printed: bytes, place: Path) -> None:
    assert read("finding of a command", place, printed)


def test_an_event_at_a_time_that_utc_has_not_is_read(place: Path) -> None:
    assert "0001-01-01" in read(
        "premis.xml", place, PREMIS.replace("1999-05-06T07:08:09", "0001-01-01T00:00:00").encode()
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"--b\n\n" * 20_000, "parts"),
        (b"--b\n" + b"a:b\n" * 4000, "lines"),
    ],
)
def test_a_message_of_very_many_parts_is_not_taken_apart(
    content: bytes, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "_MOST_LINES", 3000 if said == "lines" else 10**9)
    place.write_bytes(b'Content-Type: multipart/mixed; boundary="b"\n\n' + content)

    with pytest.raises(mail.UnreadableMailError, match=said):
        list(mail.attachments(place))


@pytest.mark.parametrize(
    "name", ["=?utf-7?q?+2AA-?=", "=?unicode_escape?q?=5Cud800?=", 'x"; filename*0*=a; filename*="b']
)
def test_an_attachment_has_a_name_that_can_be_one(name: str, place: Path) -> None:
    place.write_text(f'MIME-Version: 1.0\nContent-Disposition: attachment; filename="{name}"\n\nx\n')

    assert [] == list(unsound(outcome(READERS["mail"], place)))


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A clamd that says whatever it is told to."""
    says: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # whoever asked hung up
                for words in says:
                    connection.sendall(words)
                while connection.recv(1 << 16):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield tmp_path / "s", says
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"1: again\0",
        b"7: fd[1]: OK\0",
        b"0: fd[1]: OK\0",
        b"9" * 5000 + b": x\0",
        b"nothing\0",
        b"2: \0",
        b"2: \xff\xfe FOUND of what\0",
        b"a" * (2 << 20),
    ],
    ids=range(8),
)
async def test_what_clamd_says_is_a_verdict_or_none(
    answering: tuple[Path, list[bytes]], answer: bytes, tmp_path: Path
) -> None:
    address, says = answering
    says += [b"1: ClamAV 1.4/1/x\0", answer]
    (tmp_path / "a").write_bytes(b"a")

    _, [found] = await Clamd(str(address), ClamAVSettings(answer_seconds=0.2)).scan([tmp_path / "a"])

    assert found.verdict is Verdict.NOT_SCANNED
    assert found.note


@pytest.mark.parametrize("name", [name for name in READERS if name not in {"bag", "METS, validated"}])
def test_the_table_has_right_documents(name: str, place: Path) -> None:
    said = read(name, place, READERS[name].right)

    assert "Violation" not in said
    assert "cannot" not in said


def test_requests_that_are_nested_deeply_are_refused(place: Path) -> None:
    content = json.dumps({"data": {"client_context": {}}}).replace("{}", '{"a":' * 5000 + "1" + "}" * 5000)

    assert "not JSON" in read("request", place, content.encode()) or "too_deep" in read(
        "request", place, content.encode()
    )
