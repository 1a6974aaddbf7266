"""Which orders one run of a program makes together (`Command.together`): those whose start costs more than the work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingestd.derivatives.records import Order
from ingestd.fpr.records import Command
from ingestd.oais import File

MOST_BYTES = 16 * 2**20
"""What the files of one run have together, at most: for what is larger, the start of a program counts for little."""
FEWEST = 8
"""More runs, with fewer files in each, would keep more processors busy with starting."""


@dataclass(slots=True)
class _Batch:
    most: int
    numbers: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    size_bytes: int = 0

    def takes(self, order: Order) -> bool:
        fits = len(self.numbers) < self.most and self.size_bytes + order.file.size_bytes <= MOST_BYTES
        return fits and _stem(order) not in self.names

    def add(self, number: int, order: Order) -> None:
        self.numbers.append(number)
        self.names.add(_stem(order))
        self.size_bytes += order.file.size_bytes


def batches(
    orders: Sequence[Order],
    *,
    resolve: Callable[[Command], Command | None],
    allowed_bytes: Callable[[File], int],
    at_once: int,
) -> Sequence[Sequence[int]]:
    """Give the numbers of the orders that are made together, each in one batch; spread over `at_once` runs.

    `resolve` gives the command that is run for another, `allowed_bytes` what may be written for a file: that is a limit
    of the run, so it is the same for all of a batch. Its files differ in their names up to the extension, by which
    programs that take many files name what they write.
    """
    made: list[Sequence[int]] = []
    alike: dict[tuple[str, int], list[int]] = {}
    most: dict[tuple[str, int], int] = {}
    for number, order in enumerate(orders):
        command = resolve(order.command)
        if command is None or command.together == 1 or order.file.size_bytes > MOST_BYTES:
            made.append([number])
            continue
        key = command.id, allowed_bytes(order.file)
        alike.setdefault(key, []).append(number)
        most[key] = command.together
    for key, numbers in alike.items():
        spread = max(FEWEST, math.ceil(len(numbers) / at_once))
        made += [batch.numbers for batch in _filled(orders, numbers, min(most[key], spread))]
    return made


def _filled(orders: Sequence[Order], numbers: Sequence[int], most: int) -> Sequence[_Batch]:
    filled: list[_Batch] = []
    for number in numbers:
        order = orders[number]
        batch = next((one for one in filled if one.takes(order)), None)
        if batch is None:
            batch = _Batch(most)
            filled.append(batch)
        batch.add(number, order)
    return filled


def _stem(order: Order) -> str:
    """Give the file's name up to its last dot, as `${name%.*}` does; all of it where there is none but the first."""
    name = order.path.name
    return name.rpartition(".")[0] or name
