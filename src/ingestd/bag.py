"""BagIt 1.0 (RFC 8493): the AIP's container, and bags of others (0.93 to 1.0). The only module that knows bagit.

The tag files are written from digests that are known already: no byte is read twice to make a bag. Proving one is
another matter: `read_manifest` gives what was promised, and the AIP's verification reads everything again. What others
wrote is read by `read_declaration`, `manifests_in`, `read_info` and `read_fetch`, which believe nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

import aiofiles
import bagit

from ingestd.errors import Code, ContentError, Violation
from ingestd.fixity import digest_file
from ingestd.manifests import SURROGATE, numbered_lines, word_of
from ingestd.oais import escape_name
from ingestd.premis import DigestAlgorithm

DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""`bagit.txt` (RFC 8493, 2.1.1)."""
DECLARED = "bagit.txt"
VERSIONS = ("0.93", "0.94", "0.95", "0.96", "0.97", "1.0")
_VERSION = re.compile(r"BagIt-Version: ?(\d+\.\d+)[ \t]*")
_ENCODING = re.compile(r"Tag-File-Character-Encoding: ?([A-Za-z0-9._:\-]+)[ \t]*")
_MANIFEST = re.compile(r"(tag)?manifest-([A-Za-z0-9\-_]+)\.txt")
_FETCH = re.compile(r"(\S+)[ \t]+(\d+|-)[ \t]+(.+)", re.DOTALL)
INFO_FILES = ("bag-info.txt", "package-info.txt")
"""The second is what 0.93 to 0.95 call it."""
COUNTED = frozenset({"Bagging-Date", "Payload-Oxum", "Bag-Size", "Bag-Count"})
"""Labels of a bag's description that hold for that bag alone (RFC 8493, 2.2.2)."""
_MOST_INFO_CHARACTERS = 2**20


BAG = "bag"
"""The package's fact that says how far the bag is that was received; there is none where no bag was."""


class BagState(StrEnum):
    """How far a received bag is on its way to a transfer."""

    VERIFIED = "verified"
    MOVING = "moving"
    LAID_OUT = "laid out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """One payload file: its path below `data/` (decoded by `os.fsdecode`), digest and size."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bag:
    """What was written. `digest` is the tag manifest's, which covers the manifests and so the whole bag."""

    files: int
    size_bytes: int
    digest: str


async def write_tags(
    folder: Path,
    payload: AsyncIterator[Sequence[Payload]],
    *,
    algorithm: DigestAlgorithm,
    info: Mapping[str, Sequence[str]],
    bagging_date: date,
) -> Bag:
    """Make `folder`, whose payload is in `folder/data`, a bag: write declaration, manifest, bag-info and tag manifest.

    `payload` gives every payload file, in windows. `info` adds to `bag-info.txt` (2.2.2).
    """
    manifest = folder / f"manifest-{algorithm}.txt"
    files = size_bytes = 0
    async with aiofiles.open(manifest, "wb") as out:
        async for window in payload:
            entries = [f"{entry.digest}  data/".encode() + _encode(entry.path) + b"\n" for entry in window]
            await out.write(b"".join(entries))
            files += len(window)
            size_bytes += sum(entry.size_bytes for entry in window)
    tags = {**info, "Bagging-Date": [bagging_date.isoformat()], "Payload-Oxum": [f"{size_bytes}.{files}"]}
    lines = [f"{name}: {_one_line(value)}\n" for name, values in sorted(tags.items()) for value in values]
    await _write(folder / "bagit.txt", DECLARATION)
    await _write(folder / "bag-info.txt", "".join(lines))
    tag_lines = []
    for name in ["bag-info.txt", "bagit.txt", manifest.name]:
        digest = (await digest_file(folder / name, [algorithm]))[algorithm]
        tag_lines.append(f"{digest}  {name}\n")
    tag_manifest = folder / f"tagmanifest-{algorithm}.txt"
    await _write(tag_manifest, "".join(tag_lines))
    digest = (await digest_file(tag_manifest, [algorithm]))[algorithm]
    return Bag(files=files, size_bytes=size_bytes, digest=digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What `bagit.txt` says (2.1.1), and what is wrong with it."""

    version: str = ""
    encoding: str = "utf-8"
    faults: Sequence[Violation] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest by its name. `word` is how manifests call its algorithm, empty where that is not known here."""

    name: str
    word: str
    of_tags: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ToFetch:
    """A line of `fetch.txt` (2.2.3). `size_bytes` is None where it is not said."""

    line: int
    url: str
    size_bytes: int | None
    path: str


def is_bag(root: Path) -> bool:
    """Whether a folder means to be a bag: it has a `bagit.txt` that begins like one, or one beside `data/`."""
    declaration = root / "bagit.txt"
    if not declaration.is_file():
        return False
    with declaration.open("rb") as file:
        return b"BagIt-Version" in file.read(64) or (root / "data").is_dir()


def no_bag() -> ContentError:
    """The error for what should be a bag and is none."""
    violation = Violation(path="bagit.txt", rule="declaration", expected="BagIt-Version: 1.0", actual="no such file")
    return ContentError(
        "the source is no bag",
        code=Code.CONTENT_BAG_INVALID,
        violations=(violation,),
        remediation="Send a bag, or leave the request's `type` out.",
    )


def read_declaration(path: Path) -> Declaration:
    """Read a `bagit.txt`: two lines, UTF-8 without a byte-order mark (2.1.1)."""
    try:
        with path.open("rb") as file:
            raw = file.read(4096)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return Declaration(faults=[_declared("encoding", "a declaration in UTF-8", "")])
    faults = [_declared("byte_order_mark", "no byte-order mark", "U+FEFF")] if text.startswith("\ufeff") else []
    lines = [*text.removeprefix("\ufeff").splitlines(), "", ""]
    version, encoding = _VERSION.fullmatch(lines[0]), _ENCODING.fullmatch(lines[1])
    if version is None or version[1] not in VERSIONS:
        faults.append(_declared("version", f"BagIt-Version: {' or '.join(VERSIONS)}", lines[0][:200]))
    if encoding is None:
        faults.append(_declared("encoding", "Tag-File-Character-Encoding: UTF-8", lines[1][:200]))
    return Declaration(
        version=version[1] if version else "", encoding=encoding[1] if encoding else "utf-8", faults=faults
    )


def _declared(rule: str, expected: str, actual: str) -> Violation:
    return Violation(path="bagit.txt", rule=rule, expected=expected, actual=actual)


def manifests_in(root: Path) -> list[Manifest]:
    """Give the bag's manifests, those of the payload first."""
    with os.scandir(root) as entries:
        found = [manifest_of(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
    return sorted((one for one in found if one), key=lambda found: (found.of_tags, found.name))


def manifest_of(name: str) -> Manifest | None:
    """What a file of this name at the top of a bag is a manifest of; None where it is none."""
    match = _MANIFEST.fullmatch(name)
    return Manifest(name=match[0], word=word_of(match[2]), of_tags=bool(match[1])) if match else None


def info_of(root: Path) -> str:
    """The name of the bag's own description; empty where it has none."""
    return next((name for name in INFO_FILES if (root / name).is_file()), "")


def read_info(path: Path, encoding: str, *, name: str) -> Iterator[tuple[str, str] | Violation]:
    """Read the bag's own description (2.2.2): (label, value), values on several lines joined by a space."""
    label, value, read = "", "", 0
    for number, text in numbered_lines(path, name=name, encoding=encoding):
        read += 0 if isinstance(text, Violation) else len(text)
        if isinstance(text, Violation) or read > _MOST_INFO_CHARACTERS:
            expected = f"at most {_MOST_INFO_CHARACTERS} characters"
            yield text if isinstance(text, Violation) else Violation(path=name, rule="size", expected=expected)
            return
        if SURROGATE.search(text):
            yield Violation(path=f"{name}:{number}", rule="encoding", expected=f"text in {encoding}")
        elif text[:1] in (" ", "\t") and label:
            value = f"{value} {text.strip()}".strip()
        elif text.strip():
            if label:
                yield label, value
            label, colon, value = (part.strip() for part in text.partition(":"))
            if not colon or not label:
                yield Violation(path=f"{name}:{number}", rule="line", expected="Label: value", actual=text[:200])
                label = ""
    if label:
        yield label, value


def described(root: Path) -> dict[str, list[str]]:
    """What a bag's own description says, by label; nothing where there is none, or of what cannot be read."""
    name, said = info_of(root), dict[str, list[str]]()
    encoding = read_declaration(root / DECLARED).encoding
    for item in read_info(root / name, encoding, name=name) if name else ():
        if not isinstance(item, Violation):
            said.setdefault(item[0], []).append(item[1])
    return said


def read_fetch(path: Path, encoding: str) -> Iterator[ToFetch | Violation]:
    """Read a `fetch.txt` (2.2.3), line by line, if there is one: what the bag lacks and where it can be had."""
    for number, text in numbered_lines(path, name="fetch.txt", encoding=encoding) if path.is_file() else ():
        if isinstance(text, Violation):
            yield text
        elif text.strip():
            match = None if SURROGATE.search(text) else _FETCH.fullmatch(text)
            expected = f"a URL, a length or -, and a path, in {encoding}"
            if match is None or len(match[2]) > 18:
                actual = escape_name(text[:200])
                yield Violation(path=f"fetch.txt:{number}", rule="line", expected=expected, actual=actual)
            else:
                size = None if match[2] == "-" else int(match[2])
                yield ToFetch(line=number, url=match[1], size_bytes=size, path=match[3])


def read_manifest(path: Path) -> Iterator[tuple[str, str]]:
    """Read a manifest line by line: (path as `os.fsdecode` gives it, digest)."""
    with path.open("rb") as lines:
        for line in lines:
            digest, _, name = line.rstrip(b"\n").partition(b"  ")
            yield os.fsdecode(_decode(name)), digest.decode("ascii")


def validate(folder: Path) -> None:
    """Prove an unpacked bag with bagit: completeness, every digest. Raises `ContentError` (`content.bag_invalid`)."""
    try:
        bagit.Bag(os.fspath(folder)).validate()
    except bagit.BagValidationError as error:
        violations = tuple(Violation(path="", rule="bag", actual=str(detail)) for detail in error.details)
        raise ContentError(str(error), code=Code.CONTENT_BAG_INVALID, violations=violations) from error
    except bagit.BagError as error:
        raise ContentError(str(error), code=Code.CONTENT_BAG_INVALID) from error


def _encode(path: str) -> bytes:
    """Line ends and `%` in names are percent-encoded (RFC 8493, 2.1.3)."""
    raw = os.fsencode(path)
    return raw.replace(b"%", b"%25").replace(b"\n", b"%0A").replace(b"\r", b"%0D")


def _decode(name: bytes) -> bytes:
    return name.replace(b"%0D", b"\r").replace(b"%0A", b"\n").replace(b"%25", b"%")


def _one_line(value: str) -> str:
    return " ".join(value.split())


async def _write(path: Path, text: str) -> None:
    async with aiofiles.open(path, "w", encoding="utf-8", newline="\n") as out:
        await out.write(text)
