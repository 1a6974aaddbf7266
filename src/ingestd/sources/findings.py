"""Everything that is wrong with a source, collected so that the submitter hears of all of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingestd.errors import (
    CATALOGUE,
    Code,
    ContentError,
    IngestError,
    PolicyError,
    RequestError,
    ResourceError,
    SourceError,
    ToolError,
    ToolFailure,
    Violation,
)
from ingestd.oais import escape_name
from ingestd.sources.records import Checksum

if TYPE_CHECKING:
    from ingestd.config import SourceSettings

LISTED = 100
"""How many violations are listed; all are counted."""

_BY_CATEGORY: Mapping[str, type[IngestError]] = {
    "content": ContentError,
    "policy": PolicyError,
    "request": RequestError,
    "resource": ResourceError,
    "source": SourceError,
    "tool": ToolError,
}

_GRAVEST_FIRST = (
    Code.CONTENT_ARCHIVE_BOMB,
    Code.CONTENT_PATH_TRAVERSAL,
    Code.CONTENT_NAME_COLLISION,
    Code.SOURCE_ACCESS_DENIED,
    Code.CONTENT_STRUCTURE_INVALID,
    Code.POLICY_SIZE_OVER_LIMIT,
    Code.POLICY_TOO_MANY_FILES,
    Code.CONTENT_ARCHIVE_ENCRYPTED,
    Code.CONTENT_ARCHIVE_CORRUPT,
)


def failure(
    code: Code,
    detail: str,
    *,
    violations: Sequence[Violation] = (),
    tool: ToolFailure | None = None,
    stderr_tail: str = "",
) -> IngestError:
    """Make the error that belongs to `code`."""
    kind = _BY_CATEGORY[code.category]
    return kind(detail, code=code, violations=tuple(violations), tool=tool, stderr_tail=stderr_tail)


class Findings:
    """Violations in the order in which they were found; the rule of each is the code of an error.

    One error carries them all: its code is the gravest one found.
    """

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.counts: dict[Code, int] = {}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, code: Code, path: str, *, expected: str, actual: str) -> None:
        """Note that what is at `path` (within the source, as `os.fsdecode` reads it) breaks a rule."""
        self.counts[code] = self.counts.get(code, 0) + 1
        if len(self.violations) < LISTED:
            self.violations.append(
                Violation(path=escape_name(path), rule=code.value, expected=expected, actual=escape_name(actual))
            )

    def limit(self, settings: SourceSettings, *, files: int, size_bytes: int, counted: bool = True) -> None:
        """Note that a source has more files or bytes than it may; files may not have been `counted` to the end."""
        if files > settings.max_files:
            expected = f"at most {settings.max_files} files (sources.max_files)"
            self.add(Code.POLICY_TOO_MANY_FILES, "", expected=expected, actual=str(files) if counted else "more")
        if size_bytes > settings.max_bytes:
            expected = f"at most {settings.max_bytes} bytes (sources.max_bytes)"
            self.add(Code.POLICY_SIZE_OVER_LIMIT, "", expected=expected, actual=str(size_bytes))

    def error(self) -> IngestError | None:
        """Everything found, as one error; None where nothing was."""
        if not self.counts:
            return None
        code = min(self.counts, key=_GRAVEST_FIRST.index)
        what = "; ".join(f"{CATALOGUE[each].title} ({count})" for each, count in self.counts.items())
        listed = f", the first {LISTED} are listed" if self.total > LISTED else ""
        return failure(code, f"{self.total} in all{listed}: {what}", violations=self.violations)

    def raise_any(self) -> None:
        if error := self.error():
            raise error


def compare(checksum: Checksum, value: str) -> None:
    """Hold a source's digest against what the request says. Raises `SourceError` (`source.checksum_mismatch`)."""
    if checksum.value.lower() == value:
        return
    violation = Violation(
        path="source.checksum", rule=Code.SOURCE_CHECKSUM_MISMATCH.value, expected=checksum.value, actual=value
    )
    raise SourceError(
        f"the source's {checksum.algorithm} is {value}, not {checksum.value}",
        code=Code.SOURCE_CHECKSUM_MISMATCH,
        violations=(violation,),
    )
