"""A JSON file that is one array, item by item: memory holds the largest item, not the file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestd.errors import Violation

ITEM_CHARACTERS = 8 << 20
"""Longest item."""
_CHUNK_CHARACTERS = 1 << 16
_SPACE = " \t\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """An item of the array: its number from 1 on, and where it begins."""

    number: int
    line: int
    column: int
    value: Any


def items(path: Path, name: str, example: str) -> Iterator[Item | Violation]:
    """Give the items of a file in UTF-8; after what is no JSON, a violation and nothing more.

    `name` and `example` are for the violation, whose path is `name:line:column`. Blocks; raises `OSError`.
    """
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reading = _Reading(text)
        try:
            yield from reading.items()
        except _NotArray as error:
            place = f"{name}:{reading.line}:{reading.column}"
            yield Violation(path=place, rule="json", expected=f"a JSON array, for example {example}", actual=str(error))


class _NotArray(ValueError):
    """What is read is not an array of items; the message says why."""


class _Reading:
    """A window on the text, and where it begins."""

    def __init__(self, text: io.TextIOBase) -> None:
        self.line = 1
        self.column = 1
        self._text = text
        self._window = ""
        self._ended = False
        self._decoder = json.JSONDecoder(parse_constant=_refuse)

    def items(self) -> Iterator[Item]:
        self._take("[", "it does not begin with [")
        if self._peek() == "]":
            self._forward(1)
        else:
            number = 0
            while True:
                number += 1
                self._peek()
                line, column = self.line, self.column
                yield Item(number=number, line=line, column=column, value=self._value())
                if self._peek() == "]":
                    self._forward(1)
                    break
                self._take(",", "there is no comma after an item")
        if self._peek():
            raise _NotArray("something follows the array")

    def _take(self, sign: str, problem: str) -> None:
        if self._peek() != sign:
            raise _NotArray(problem if self._window else "the file ends too early")
        self._forward(1)

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            rest = self._window.lstrip(_SPACE)
            self._forward(len(self._window) - len(rest))
            if self._window or not self._more():
                return self._window[:1]

    def _value(self) -> Any:
        wanted = _CHUNK_CHARACTERS
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window)
            except json.JSONDecodeError as error:
                problem: Exception = error
            except (RecursionError, ValueError) as error:
                raise _NotArray(f"an item cannot be read: {error}") from error
            else:
                if end < len(self._window) or self._ended:
                    self._forward(end)
                    return value
                problem = _NotArray("the file ends too early")
            if len(self._window) > ITEM_CHARACTERS:
                raise _NotArray(f"an item is longer than {ITEM_CHARACTERS} characters, or not JSON: {problem}")
            if not self._more(wanted):
                self._forward(getattr(problem, "pos", 0))
                raise _NotArray(str(getattr(problem, "msg", problem)))
            wanted *= 2  # so that a long item is not tried too often

    def _more(self, characters: int = _CHUNK_CHARACTERS) -> bool:
        try:
            chunk = self._text.read(characters)
        except UnicodeDecodeError as error:
            raise _NotArray(f"it is not UTF-8: byte {error.object[error.start]:#04x}") from error
        self._window += chunk
        self._ended = not chunk
        return bool(chunk)

    def _forward(self, count: int) -> None:
        passed = self._window[:count]
        lines = passed.count("\n")
        self.line += lines
        self.column = len(passed) - passed.rfind("\n") if lines else self.column + len(passed)
        self._window = self._window[count:]


def _refuse(constant: str) -> Any:
    raise _NotArray(f"{constant} is no JSON")
