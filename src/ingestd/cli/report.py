"""Results and errors in words."""

from __future__ import annotations

import sys
from urllib.parse import unquote, urlsplit

from ingestd.errors import IngestError
from ingestd.messages import (
    AipData,
    CountsData,
    DipData,
    ErrorData,
    EventData,
    NormalizationData,
    TimingData,
    WarningData,
)

_SHOWN_VIOLATIONS = 20
_SHOWN_FORMATS = 12


def print_result(data: EventData, *, as_json: bool) -> None:
    """Print how a request ended: everything as JSON on stdout, or what a person wants to know."""
    if as_json:
        print(data.model_dump_json(indent=2, exclude_none=True))
        if data.error is not None:
            print_error_data(data.error)
        return
    if data.aip is not None and data.error is None:
        _print_aip(data.aip, data.counts, data.timing)
        if data.normalization:
            _print_normalization(data.normalization)
        if data.dip is not None:
            _print_dip(data.dip)
    if data.warnings:
        _print_warnings(data.warnings)
    if data.error is not None:
        print_error_data(data.error)
        if data.work_folder:
            print(f"\nKept: {data.work_folder}\nWhen mended: ingestd resume {data.package_id}", file=sys.stderr)


def print_error(error: IngestError, *, as_json: bool = False) -> None:
    """Print an error of the command itself, with what to do about it."""
    data = ErrorData.of(error)
    if as_json:
        print(data.model_dump_json(indent=2, exclude_none=True))
    print_error_data(data)


def _print_aip(aip: AipData, counts: CountsData | None, timing: TimingData | None) -> None:
    for stored in aip.stored:
        print(f"\nAIP       {_place(stored.url)}")
    print(f"Id        {aip.id}")
    print(f"Package   {aip.format}, {size(aip.size_bytes)}")
    if aip.checksum:
        print(f"Checksum  {aip.checksum.algorithm} {aip.checksum.value}")
    if counts:
        print(f"Contents  {_contents(counts)}")
    print(f"METS      {aip.mets_path}")
    files = counts.files if counts else 0
    for stored in aip.stored:
        how = ", before it was encrypted" if aip.encryption else ""
        print(f"Verified  every file of the packed bag ({files} in the METS) by digest{how}; {stored.verified_by}")
        if stored.pointer:
            print(f"Pointer   {_place(stored.pointer.url)}")
    if aip.encryption:
        print(f"Encrypted with {aip.encryption.program} {aip.encryption.version} to {', '.join(aip.encryption.keys)}")
    if timing:
        print(f"Took      {timing.seconds:.1f} s")


def _print_normalization(normalization: list[NormalizationData]) -> None:
    print("\nNormalization")
    for one in normalization:
        print(f"  {one.purpose:13} {', '.join(f'{count} {name}' for name, count in one.outcomes.items())}")
        for made in one.made[:_SHOWN_FORMATS]:
            by = made.tool or made.command
            print(f"    {made.files} × {made.format or 'unknown'} → {made.into or 'unknown'} ({by})")
        if len(one.made) > _SHOWN_FORMATS:
            print("    … and more")


def _print_dip(dip: DipData) -> None:
    for stored in dip.stored:
        print(f"\nDIP       {_place(stored.url)}")
    parts = [(dip.access_copies, "access copy"), (dip.thumbnails, "thumbnail"), (dip.texts, "text")]
    words = ", ".join(f"{number} {_plural(noun, number)}" for number, noun in parts if number)
    print(f"          {words or 'no files'}; {size(dip.size_bytes)}; {dip.checksum.algorithm} {dip.checksum.value}")


def _place(url: str) -> str:
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else url


def _contents(counts: CountsData) -> str:
    parts = [
        (counts.originals, "original"),
        (counts.derivatives, "derivative"),
        (counts.submission_documentation, "submission document"),
        (counts.metadata, "metadata file"),
        (counts.removed, "file removed"),
    ]
    words = [f"{number} {_plural(noun, number)}" for number, noun in parts if number]
    return f"{', '.join(words)}; {counts.identified} of {counts.files} identified; {size(counts.size_bytes)}"


def _plural(noun: str, number: int) -> str:
    if number == 1:
        return noun
    irregular = {"file removed": "files removed", "access copy": "access copies"}
    return irregular.get(noun, f"{noun}s")


def _print_warnings(warnings: list[WarningData]) -> None:
    print("\nWarnings")
    for warning in warnings:
        print(f"  {warning.code} ({warning.count})")
        for sample in warning.samples:
            print(f"    {sample}")
        if warning.count > len(warning.samples):
            print(f"    … and {warning.count - len(warning.samples)} more")


def print_error_data(error: ErrorData) -> None:
    """Print an error on stderr: what happened, every violation, what to do."""
    print(f"\nerror: {error.title} ({error.code})\n  {error.detail}", file=sys.stderr)
    for violation in error.violations[:_SHOWN_VIOLATIONS]:
        asks = violation.expected.endswith("?")
        expected = f", {'' if asks else 'expected '}{violation.expected}" if violation.expected else ""
        actual = f", found {violation.actual}" if violation.actual else ""
        print(f"  - {violation.path or '.'}: {violation.rule}{expected}{actual}", file=sys.stderr)
    more = max(0, len(error.violations) - _SHOWN_VIOLATIONS) + error.violations_left_out
    if more:
        print(f"  … and {more} more (see --json)", file=sys.stderr)
    if error.stderr_tail:
        print(f"  its last words: {error.stderr_tail.strip()[-500:]}", file=sys.stderr)
    print(f"What to do: {error.remediation}", file=sys.stderr)


def size(number: float) -> str:
    """A size for people: `1.5 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
