"""Whether an AIP is whole and what it says: every byte read, every promise held against what is there, both ways.

Each check is one function and gives its findings as they come; what it could not look at, it says in a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from ingestd.aip.bag_checks import check_bag
from ingestd.aip.checksums import check_checksum_files
from ingestd.aip.container import shown
from ingestd.aip.mets_checks import check_mets
from ingestd.aip.pointer import check_pointer
from ingestd.aip.reading import ALGORITHMS, Reading, opened
from ingestd.aip.records import Checked, Verification
from ingestd.errors import Violation
from ingestd.mets import validate

LIMIT = 1000
"""How many findings are kept; all are counted."""

_OURS = "SELECT 1 FROM agent WHERE identifier LIKE 'ingestd%' OR name = 'ingestd'"


async def verify(path: Path, *, pointer: Path | None = None, scratch: Path | None = None) -> Verification:
    """Prove the AIP at `path`: the package, the bag (RFC 8493), METS, PREMIS, every digest, every file both ways, and
    what lies beside it: checksum files, and the pointer file unless another is named.

    Raises what `reading.opened` raises, for what cannot be taken for an AIP at all; `OSError` for a pointer file that
    was named and cannot be read.
    """
    async with opened(path, digests=True, scratch=scratch) as reading:
        findings = _Findings()
        findings.add(reading.troubles)
        findings.add(await _schema(reading))
        beside, checksum_files = await check_checksum_files(reading)
        told, pointer_name = await check_pointer(reading, pointer)
        await reading.run(partial(_check, reading, findings))
        findings.add([*beside, *told])
        return await reading.run(partial(_verification, reading, findings, pointer_name, checksum_files))


class _Findings:
    """The first findings in full, the number of all."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.count = 0

    def add(self, found: Iterable[Violation]) -> None:
        for violation in found:
            self.count += 1
            if len(self.kept) < LIMIT:
                self.kept.append(violation)


async def _schema(reading: Reading) -> list[Violation]:
    """Hold the METS against METS' and PREMIS' schemas; one of our own against Archivematica's schematron too."""
    if reading.mets is None or any(trouble.rule == "mets.xml" for trouble in reading.troubles):
        return []
    ours = await reading.run(partial(reading.facts.row, _OURS)) is not None
    if not ours:
        reading.notes.append("Archivematica's schematron was not applied: it is stricter than METS of others are")
    mets = shown(reading.mets)
    found = await validate(reading.local(reading.mets), schematron=ours)
    return [
        Violation(
            path=f"{mets}{violation.path}", rule=violation.rule, expected=violation.expected, actual=violation.actual
        )
        for violation in found
    ]


def _check(reading: Reading, findings: _Findings) -> None:
    findings.add(_outside(reading))
    findings.add(chain(check_bag(reading), check_mets(reading)))
    for (algorithm,) in reading.facts.rows("SELECT algorithm FROM listed UNION SELECT algorithm FROM fixity"):
        if algorithm not in ALGORITHMS:
            reading.notes.append(f"digests by {algorithm or 'an unnamed algorithm'} were not checked: it is not known")


def _outside(reading: Reading) -> Iterator[Violation]:
    for (path,) in reading.facts.rows("SELECT path FROM outside ORDER BY path"):
        expected = f"everything within {shown(reading.root)}/"
        yield Violation(path=shown(path), rule="package.entry", expected=expected, actual="a file beside the AIP")


def _verification(reading: Reading, findings: _Findings, pointer: str, checksum_files: Sequence[str]) -> Verification:
    facts = reading.facts
    known = ", ".join(f"'{name}'" for name in sorted(ALGORITHMS))
    compared = (
        f"SELECT count(*) FROM listed JOIN member USING (path) WHERE algorithm IN ({known})",  # noqa: S608  an enum
        f"SELECT count(*) FROM fixity JOIN file ON number = file JOIN member USING (path) WHERE algorithm IN ({known})",  # noqa: S608  an enum
    )
    return Verification(
        name=reading.name,
        identifier=reading.identifier,
        form=reading.container.form,
        valid=not findings.count,
        found=findings.count,
        findings=findings.kept,
        checked=Checked(
            members=facts.count("SELECT count(*) FROM member"),
            size_bytes=facts.count("SELECT sum(size_bytes) FROM member"),
            digests=sum(facts.count(sql) for sql in compared),
            mets_files=facts.count("SELECT count(*) FROM file"),
            events=facts.count("SELECT count(*) FROM event"),
            pointer=pointer,
            checksum_files=checksum_files,
        ),
        notes=reading.notes,
    )
