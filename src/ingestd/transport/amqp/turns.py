"""Whose turn it is: among priorities by weight, among tenants one after the other.

Of ten requests that a worker takes while all priorities wait, six are of high priority, three of normal, one of low;
a priority that nobody waits in leaves its turns to the others. And a worker takes no two requests of one tenant after
another from a queue while it finds one of somebody else's among its next `LOOK`: those before it go to the end. So a
tenant with one request does not wait for another's thousand. Where nobody else is found the whole queue went round
once, and comes in its order; then requests are taken as they come for ten times as long as the look took.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping

from ingestd.messages import Priority

WEIGHTS: Mapping[Priority, int] = {Priority.HIGH: 6, Priority.NORMAL: 3, Priority.LOW: 1}
LOOK = 1000
LEAST_QUIET_SECONDS = 2.0
QUIET_FOR_EACH = 10
"""How long requests are taken as they come after a look that found nobody else, by how long that took."""


class Priorities:
    """The order in which queues are asked, from one request to the next."""

    def __init__(self, queues: Mapping[Priority, str]) -> None:
        self._queues = queues
        self._turns = itertools.cycle(_spread(WEIGHTS))
        self._first = next(self._turns)
        self._had_turn = False

    def order(self) -> Iterator[str]:
        if self._had_turn:
            self._first = next(self._turns)
        self._had_turn = True
        first = self._first
        yield self._queues[first]
        yield from (queue for priority, queue in self._queues.items() if priority is not first)

    def again(self) -> None:
        """What came was set back: the turn is not over, so a look for other tenants stays in one queue."""
        self._had_turn = False


def _spread(weights: Mapping[Priority, int]) -> list[Priority]:
    """One cycle in which each has as many turns as its weight, as far apart as can be."""
    total = sum(weights.values())
    owed = dict.fromkeys(weights, 0)
    cycle = []
    for _ in range(total):
        for priority, weight in weights.items():
            owed[priority] += weight
        chosen = max(owed, key=lambda priority: owed[priority])
        owed[chosen] -= total
        cycle.append(chosen)
    return cycle


class Tenants:
    """Who was served last from one queue, and how far was looked for somebody else."""

    def __init__(self) -> None:
        self._last = ""
        self._looked = 0
        self._most = 0
        self._began = 0.0
        self._quiet_until = 0.0

    def takes(self, tenant: str, *, left: int) -> bool:
        """Say whether a request is taken now, or set back so that another tenant's may come. `left` are behind it."""
        now = asyncio.get_running_loop().time()
        if tenant == self._last and now >= self._quiet_until:
            if self._looked == 0:
                self._most, self._began = min(LOOK, left + 1) if left else 0, now
            if self._looked < self._most:
                self._looked += 1
                return False
            if self._most:
                self._quiet_until = now + max(LEAST_QUIET_SECONDS, QUIET_FOR_EACH * (now - self._began))
        if tenant != self._last:
            self._quiet_until = 0
        self._last, self._looked = tenant, 0
        return True
