"""Checksum manifests: lines of digest and path, as bags have them (RFC 8493, 2.1.3) and as md5sum and its kin write.

What is read here was written by strangers, and may be millions of lines long: it is given line by line, and a line
that cannot be used is a violation, never an exception.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ingestd.errors import Violation
from ingestd.oais import escape_name

MOST_CHARACTERS = 16 * 1024
"""Longest line. Linux knows no path longer than 4096 bytes."""
LISTED = 100
"""How many violations are listed; all are counted."""
_EXACT = re.compile(r"([0-9A-Fa-f]+)(?:  | \*)(.+)", re.DOTALL)
_LOOSE = re.compile(r"([0-9A-Fa-f]+)[ \t]+\*?(.+)", re.DOTALL)
_ENCODED = re.compile("%(0[AaDd]|25)")
_ESCAPED = re.compile(r"\\([\\nr])")
_NO_ENCODINGS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}
"""What Python has among its encodings that is none: some take the square of a file's length to read it."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_MANIFEST = re.compile(r"(?:tag)?manifest-([A-Za-z0-9\-_]+)\.txt")
_CHECKSUMS = re.compile(r"(?:data/)?metadata/checksum\.([a-z0-9]+)")
SURROGATE = re.compile("[\ud800-\udfff]")
"""Stands for a byte that is not of the encoding."""


def _hashes() -> Mapping[str, str]:
    """Hashlib's algorithms of a fixed length, by the names that manifests give them (RFC 8493, 2.4)."""
    known = {re.sub("[^a-z0-9]", "", name): name for name in hashlib.algorithms_guaranteed}
    return {word: name for word, name in known.items() if not word.startswith("shake")}


HASHES: Mapping[str, str] = _hashes()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line: lower-case digest, and the path as it is written (decoded as `os.fsdecode` does)."""

    line: int
    digest: str
    path: str


Line: TypeAlias = Entry | Violation


class Wrong:
    """Violations: the first are listed, all are counted."""

    def __init__(self) -> None:
        self.total = 0
        self._listed: list[Violation] = []

    @property
    def listed(self) -> tuple[Violation, ...]:
        return tuple(self._listed)

    def add(self, violation: Violation) -> None:
        self.total += 1
        if len(self._listed) < LISTED:
            self._listed.append(violation)

    def __str__(self) -> str:
        return f"{self.total} in all" + (f", the first {LISTED} are listed" if self.total > LISTED else "")


def word_of(name: str) -> str:
    """Give an algorithm's name as manifests spell it; empty where the algorithm is not known here."""
    word = re.sub("[^a-z0-9]", "", name.lower())
    return word if word in HASHES else ""


def asked_for(paths: Iterable[str]) -> list[str]:
    """Give the algorithms that manifests among these paths of a transfer or bag will ask for."""
    matches = (_MANIFEST.fullmatch(path) or _CHECKSUMS.fullmatch(path) for path in paths)
    return sorted({word_of(match[1]) for match in matches if match} - {""})


def read(path: Path, word: str, *, name: str, encoding: str = "utf-8") -> Iterator[Line]:
    """Read the manifest at `path`, of the algorithm that manifests call `word`; `name` is what violations call it.

    Lines end in LF, CR or both; a byte-order mark is no part of the first. Blank lines are passed over.
    """
    length = 2 * hashlib.new(HASHES[word], usedforsecurity=False).digest_size
    for number, text in numbered_lines(path, name=name, encoding=encoding):
        if isinstance(text, Violation):
            yield text
        elif text.strip():
            yield _line(number, text, length, name)


def numbered_lines(path: Path, *, name: str, encoding: str) -> Iterator[tuple[int, str | Violation]]:
    """Read a text line by line, without line ends; the last is a violation where reading had to end."""
    number = 0
    try:
        codec = _codec(encoding)
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding=codec, errors="surrogateescape") as lines:
            while text := lines.readline(MOST_CHARACTERS):
                number += 1
                if len(text) == MOST_CHARACTERS:
                    yield number, _fault(name, number, "line", f"a line of less than {MOST_CHARACTERS} characters")
                    return
                yield number, text.removesuffix("\n")
    except (ValueError, LookupError):
        yield number, _fault(name, number + 1, "encoding", f"text in {escape_name(encoding[:100])}")


def _codec(encoding: str) -> str:
    """Python's name of an encoding. Raises `LookupError` and `ValueError` for what is none that text comes in."""
    name = codecs.lookup(encoding).name
    if name in _NO_ENCODINGS:
        raise LookupError(name)
    return "utf-8-sig" if name == "utf-8" else name


def _line(number: int, text: str, length: int, name: str) -> Line:
    escaped = text.startswith("\\")
    match = _EXACT.fullmatch(text.removeprefix("\\")) or _LOOSE.fullmatch(text.strip())
    if match is None:
        return _fault(name, number, "line", "a digest, two spaces and a path", escape_name(text[:200]))
    digest, path = match[1].lower(), match[2]
    if len(digest) != length:
        return _fault(name, number, "digest", f"{length} hexadecimal digits", f"{len(digest)}: {digest[:200]}")
    if SURROGATE.search(path):
        return _fault(name, number, "encoding", "a path in UTF-8, or in the encoding declared", escape_name(path))
    return Entry(line=number, digest=digest, path=_unescape(path) if escaped else path)


def _fault(name: str, number: int, rule: str, expected: str, actual: str = "") -> Violation:
    return Violation(path=f"{name}:{number}", rule=rule, expected=expected, actual=actual)


def _unescape(path: str) -> str:
    r"""Read a name as GNU's tools write it in a line that begins with a backslash: `\n`, `\r`, `\\`."""
    return _ESCAPED.sub(lambda match: {"n": "\n", "r": "\r", "\\": "\\"}[match[1]], path)


def leads_out(path: str) -> bool:
    """Whether a path could lead out of the folder that it is relative to."""
    return path.startswith("/") or ".." in path.split("/") or "\0" in path or bool(_DRIVE.match(path))


def spellings(path: str) -> list[str]:
    """Give the names that a path in a bag may stand for, the likeliest first.

    Line ends and `%` are percent-encoded in 1.0 (2.1.3), of which older software knows the line ends alone; and a name
    may have been composed or decomposed on its way (4.2).
    """
    plain = path.removeprefix("./")
    decoded = _ENCODED.sub(lambda match: chr(int(match[1], 16)), plain)
    older = _ENCODED.sub(lambda match: match[0] if match[1] == "25" else chr(int(match[1], 16)), plain)
    forms = [unicodedata.normalize(form, decoded) for form in ("NFC", "NFD")]
    return list(dict.fromkeys([decoded, older, plain, *forms]))
