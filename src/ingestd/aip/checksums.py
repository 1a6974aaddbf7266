"""The checksum file beside an AIP (`NAME.sha256`), as archival storage writes it and `sha256sum --check` reads it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from ingestd.aip.container import shown
from ingestd.aip.reading import Reading
from ingestd.errors import Violation
from ingestd.premis import DigestAlgorithm

RULE = "package.checksum"
_LINE_BYTES = 64 * 1024
_TAG_MANIFEST = re.compile(rb"/tagmanifest-[a-z0-9]+\.txt")


async def check_checksum_files(reading: Reading) -> tuple[list[Violation], list[str]]:
    """Hold an AIP, or of a folder its tag manifest, against the checksum files beside it: the findings, their names."""
    path = reading.container.path
    found: list[Violation] = []
    names = []
    for algorithm in DigestAlgorithm:
        beside = path.with_name(f"{path.name}.{algorithm}")
        line = await asyncio.to_thread(_first_line, beside)
        if line is None:
            continue
        names.append(shown(os.fsencode(beside.name)))
        digest, _, name = line.partition(b"  ")
        target = _target(path, name)
        if target is None:
            expected = f"a digest of {shown(os.fsencode(path.name))}"
            found.append(Violation(path=names[-1], rule=RULE, expected=expected, actual=shown(line[:200])))
            continue
        expected = f"{algorithm} {digest.decode('ascii', 'replace').lower()}"
        actual = await _digest(reading, target, algorithm)
        if actual != expected:
            place = shown(os.fsencode(target.name if target == path else f"{path.name}/{target.name}"))
            found.append(Violation(path=place, rule=RULE, expected=f"{expected} ({names[-1]})", actual=actual))
    return found, names


async def _digest(reading: Reading, target: Path, algorithm: DigestAlgorithm) -> str:
    try:
        return f"{algorithm} {(await reading.digests_of(target, [algorithm]))[algorithm]}"
    except OSError as error:
        return error.strerror or str(error)


def _target(path: Path, name: bytes) -> Path | None:
    """The file that a line names: the package itself, or the tag manifest of one that is a folder."""
    own = os.fsencode(path.name)
    if name == own:
        return path
    inner = name.removeprefix(own)
    return path / os.fsdecode(inner[1:]) if inner != name and _TAG_MANIFEST.fullmatch(inner) else None


def _first_line(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.readline(_LINE_BYTES).rstrip(b"\n")
    except FileNotFoundError:
        return None
