"""`aip`: reading AIPs, ours and Archivematica's, wherever they are.

Exit codes: 0 good, 1 findings, 2 what was given cannot be used.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from ingestd import aip as aips
from ingestd.cli import stored
from ingestd.cli.main import FAILED, OK, REFUSED
from ingestd.cli.report import print_error, size
from ingestd.config import Settings
from ingestd.errors import IngestError, Violation

Action = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]


async def aip(options: argparse.Namespace, settings: Settings) -> int:
    """Run the action that `options.action` names."""
    actions: dict[str, Action] = {
        "inspect": inspect,
        "verify": verify,
        "list": stored.stored_list,
        "locate": stored.locate,
        "fetch": stored.fetch,
        "replicate": stored.replicate,
        "delete": stored.delete,
        "extract": extract,
        "diff": diff,
        "report": report,
    }
    try:
        return await actions[options.action](options, settings)
    except IngestError as error:
        print_error(error, as_json=options.json)
        return REFUSED


def print_json(record: Any, *, to_stderr: bool = False) -> None:
    text = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False)
    print(text, file=sys.stderr if to_stderr else sys.stdout)


# --- inspect ---------------------------------------------------------------------------------------------------------


async def inspect(options: argparse.Namespace, settings: Settings) -> int:
    found = await aips.inspect(options.path, files=None if options.files < 0 else options.files)
    if options.json:
        print_json(found)
    else:
        _print_inspection(found)
    return OK


def _print_inspection(found: aips.Inspection) -> None:
    print(f"{found.name}\n")
    packed = "folder" if found.package_bytes is None else f"{found.form}, {size(found.package_bytes)}"
    _print_pairs(
        [
            ("Id", found.identifier or "not known"),
            ("Package", packed),
            ("METS", f"{found.mets or 'none'}{f', {found.created_at}' if found.created_at else ''}"),
            ("Contents", f"{found.files} files in the METS, {size(found.size_bytes)}; {found.members} in all"),
            *found.acting,
            ("Described", f"{found.described} files or folders have descriptive metadata" if found.described else ""),
            ("Sources", f"{found.sourced} files or folders have source metadata" if found.sourced else ""),
        ]
    )
    for said in found.descriptions:
        _print_table(said.title, said.rows)
    _print_table("Rights", [(r.basis, r.grounds, "; ".join(r.acts), r.about) for r in found.rights])
    uses = [(use or "not said", str(count.files), size(count.size_bytes)) for use, count in found.by_use.items()]
    _print_table("Uses", uses)
    _print_table(
        "Formats",
        [(f.puid or "-", f.words, str(f.files), size(f.size_bytes)) for f in found.formats],
    )
    _print_table("Events", [(e.type, e.outcome, str(e.count), e.first, e.last) for e in found.events])
    if found.concerns:
        print("\nWarnings")
    for concern in found.concerns:
        print(f"  {concern.what} ({concern.files})")
        for sample in concern.samples:
            print(f"    {sample}")
    print_violations("Troubles", found.troubles)
    for note in found.notes:
        print(f"\nNote: {note}")
    _print_tree(found)


def _print_tree(found: aips.Inspection) -> None:
    if found.tree:
        print("\nFiles")
    for entry in found.tree:
        number = "" if entry.size_bytes is None else size(entry.size_bytes)
        about = ", ".join(part for part in (entry.use, entry.puid or entry.format) if part)
        print(f"  {number:>10}  {entry.path}{f'  ({about})' if about else ''}")
    if found.not_shown:
        print(f"  … and {found.not_shown} more (see --files)")


def print_violations(title: str, violations: Sequence[Violation]) -> None:
    if violations:
        print(f"\n{title}")
    for violation in violations:
        expected = f": expected {violation.expected}" if violation.expected else ""
        actual = f"{',' if expected else ':'} found {violation.actual}" if violation.actual else ""
        print(f"  {violation.rule}  {violation.path or '.'}{expected}{actual}")


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        if value:
            print(f"{name:<10} {value}")


def _print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"  {'  '.join(cells).rstrip()}")


# --- verify ----------------------------------------------------------------------------------------------------------


async def verify(options: argparse.Namespace, settings: Settings) -> int:
    if stored.is_id(options.path):
        options.package = str(options.path)
        return await stored.verify(options, settings)
    found = await aips.verify(options.path, pointer=options.pointer)
    if options.json:
        print_json(found)
    else:
        _print_verification(found)
    return OK if found.valid else FAILED


def _print_verification(found: aips.Verification) -> None:
    checked = found.checked
    print(
        f"{found.name}\n\nRead {checked.members} files, {size(checked.size_bytes)}; compared {checked.digests} digests,"
        f" {checked.mets_files} files of the METS and {checked.events} events"
        f"{''.join(f', and {name}' for name in (checked.pointer, *checked.checksum_files) if name)}."
    )
    print_violations("Findings", found.findings)
    if found.found > len(found.findings):
        print(f"  … and {found.found - len(found.findings)} more")
    for note in found.notes:
        print(f"Note: {note}")
    print("\nValid." if found.valid else f"\nNot valid: {found.found} finding(s).")


# --- extract, diff, report -------------------------------------------------------------------------------------------


async def extract(options: argparse.Namespace, settings: Settings) -> int:
    """The file itself may go to stdout; what is said of it then goes to stderr."""
    piped = options.output == "-"
    output = sys.stdout.buffer if piped else Path(options.output) if options.output else None
    found = await aips.extract(options.path, options.file, output)
    if options.json:
        print_json(found, to_stderr=piped)
    elif not piped:
        print(f"{found.output}: {found.path}, {size(found.size_bytes)}, held against {found.compared} digests")
    for finding in found.findings:
        print(f"{finding.rule}  {finding.path}: expected {finding.expected}, found {finding.actual}", file=sys.stderr)
    return FAILED if found.findings else OK


async def diff(options: argparse.Namespace, settings: Settings) -> int:
    found = await aips.diff(options.before, options.after)
    if options.json:
        print_json(found)
    else:
        _print_difference(found)
    return OK if found.same else FAILED


def _print_difference(found: aips.Difference) -> None:
    print(f"{found.before}\n{found.after}\n\n{found.same_files} files are in both.")
    for kind, count in found.counts.items():
        print(f"\n{kind} ({count})")
        for change in (change for change in found.changes if change.kind == kind):
            words = " -> ".join(word for word in (change.before, change.after) if word)
            print(f"  {change.path}{f'  {words}' if words else ''}")
    for note in found.notes:
        print(f"\nNote: {note}")
    print("\nThe same." if found.same else f"\n{sum(found.counts.values())} differences.")


async def report(options: argparse.Namespace, settings: Settings) -> int:
    found = await aips.report(options.path, options.output)
    if options.json:
        print_json(found)
    else:
        print(f"{found.output}: {found.files} of {found.members} files listed, {found.images} images shown")
    return OK
