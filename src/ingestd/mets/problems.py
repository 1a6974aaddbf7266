"""What had to be left out of a METS."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestd.errors import Violation


@dataclass(kw_only=True, slots=True)
class Problems:
    """What had to be left out of the METS: the first ones in full, the number of all."""

    keep: int = 1000
    count: int = 0
    kept: list[Violation] = field(default_factory=list)

    def add(self, path: str, rule: str, actual: str) -> None:
        self.count += 1
        if len(self.kept) < self.keep:
            self.kept.append(Violation(path=path, rule=rule, expected="XML that can stand in a METS", actual=actual))
