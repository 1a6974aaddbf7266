"""Success counters of the format policy registry's rules: how often a rule was followed, and how often it worked out.

A package's journal counts what was run for the package, with what came of it in the same transaction. The service's
journal adds that up when a request ends, and keeps what it has added of each package: one that is resumed, and ends
again, adds only what was run since.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ingestd.journal.database import Transaction
from ingestd.oais import RuleUse

_ADD = " ON CONFLICT (rule, command) DO UPDATE SET attempts = attempts + excluded.attempts, okay = okay + excluded.okay"


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleCount:
    """How often the command of a rule was run on a file, and how often it did its work.

    It is counted apart for each command that a rule has had: a rate never mixes two.
    """

    rule: str
    command: str
    attempts: int
    okay: int

    @property
    def not_okay(self) -> int:
        return self.attempts - self.okay


async def record_uses(transaction: Transaction, uses: Sequence[RuleUse]) -> None:
    """Count uses in a package's journal."""
    attempts = Counter((use.rule, use.command) for use in uses)
    okay = Counter((use.rule, use.command) for use in uses if use.ok)
    await transaction.many(
        f"INSERT INTO rule_use (rule, command, attempts, okay) VALUES (?, ?, ?, ?){_ADD}",  # noqa: S608  constant
        [(*key, count, okay[key]) for key, count in attempts.items()],
    )


async def add_up(transaction: Transaction, package: uuid.UUID, counts: Sequence[RuleCount]) -> None:
    """Add a package's counts, over all its attempts, to the service's, but for what was added of it before."""
    row = await transaction.row("SELECT counts FROM rule_added WHERE package = ?", (str(package),))
    added = {(rule, command): (tried, okay) for rule, command, tried, okay in json.loads(row[0] if row else "[]")}
    new: list[tuple[str, str, int, int]] = []
    for count in counts:
        tried, okay = added.get((count.rule, count.command), (0, 0))
        if tried > count.attempts:  # the package was begun anew
            tried, okay = 0, 0
        if count.attempts > tried:
            new.append((count.rule, count.command, count.attempts - tried, count.okay - okay))
    await transaction.many(
        f"INSERT INTO rule_count (rule, command, attempts, okay) VALUES (?, ?, ?, ?){_ADD}",  # noqa: S608  constant
        new,
    )
    if counts:
        said = json.dumps([(count.rule, count.command, count.attempts, count.okay) for count in counts])
        await transaction.execute("INSERT OR REPLACE INTO rule_added VALUES (?, ?)", (str(package), said))
