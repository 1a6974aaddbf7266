"""A JSON array of objects, as a stream: each object with the line it begins on. Everything here blocks."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestd.errors import Violation
from ingestd.messages.values import unsound
from ingestd.metadata.encodings import detect

OBJECT_CHARACTERS = 16 << 20
"""Longest object."""
_CHUNK_CHARACTERS = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One object of the array: its number, from 1 on, the line it begins on, and what is in it."""

    number: int
    line: int
    values: Mapping[str, Any]


def entries(path: Path, name: str, example: str) -> Iterator[Entry | Violation]:
    """Give the objects of an array; what is none is a violation. After what is no JSON, nothing more comes."""
    encoding = detect(path)
    if encoding.broken_at:
        fault = f"byte {encoding.broken_byte:#04x}"
        yield Violation(path=f"{name}:{encoding.broken_at}", rule="encoding", expected="UTF-8", actual=fault)
        return
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding=encoding.name, newline="") as text:
        reader = _Reader(text, name, example)
        try:
            yield from reader.objects()
        except _NotJsonError as error:
            yield reader.fault("json", str(error), error.position)
        except RecursionError:
            yield reader.fault("json", "values within one another too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names may occur again, as columns may: all their values, as one list."""
    values: dict[str, Any] = {}
    again: dict[str, list[Any]] = {}
    for name, value in pairs:
        if name not in values:
            values[name] = value
            continue
        if name not in again:
            values[name] = again[name] = _listed(values[name])
        again[name] += _listed(value)
    return values


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list) else [value]


class _NotJsonError(ValueError):
    def __init__(self, problem: str, position: int) -> None:
        super().__init__(problem)
        self.position = position


class _Reader:
    """A window over the text that begins with the next object."""

    def __init__(self, text: io.TextIOBase, name: str, example: str) -> None:
        self._text = text
        self._name = name
        self._example = example
        self._decoder = json.JSONDecoder(object_pairs_hook=_object)
        self._window = ""
        self._at = 0
        self._line = 1
        self._column = 1
        self._ended = False

    def objects(self) -> Iterator[Entry | Violation]:
        self._expect("[", "an array of objects")
        number = 0
        if self._next() == "]":
            self._pass(1)
        else:
            while True:
                number += 1
                yield self._object(number)
                if self._next() == ",":
                    self._pass(1)
                    continue
                self._expect("]", "a comma or the end of the array")
                break
        if self._next():
            raise _NotJsonError("something after the end of the array", self._at)

    def fault(self, rule: str, actual: str, position: int | None = None) -> Violation:
        self._pass((self._at if position is None else position) - self._at)
        place = f"{self._name}:{self._line}:{self._column}"
        return Violation(path=place, rule=rule, expected=f"for example: {self._example}", actual=actual)

    def _object(self, number: int) -> Entry | Violation:
        self._next()
        line = self._line
        value, end = self._decoded()
        fault = None
        if not isinstance(value, dict):
            fault = self.fault("object", f"{type(value).__name__}, not an object")
        elif "\\u" in self._window[self._at : end] and (found := unsound(value)) is not None:
            fault = self.fault(found.rule, f"{found.path[:100]}: half a surrogate pair stands for nothing")
        self._pass(end - self._at)
        return fault or Entry(number=number, line=line, values=value)

    def _decoded(self) -> tuple[Any, int]:
        """Decode the value at the window's place, reading on as long as it may go on, by doubling: in linear time."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise _NotJsonError(error.msg, error.pos) from error
            except ValueError as error:  # a number of thousands of digits
                raise _NotJsonError(str(error), self._at) from error
            else:
                if self._ended or end < len(self._window):
                    return value, end
            if len(self._window) - self._at > OBJECT_CHARACTERS:
                raise _NotJsonError(
                    f"an object of more than {OBJECT_CHARACTERS} characters, or one that has no end", self._at
                )
            self._fill(max(_CHUNK_CHARACTERS, len(self._window) - self._at))

    def _next(self) -> str:
        """Give the next character that is no space, without passing it; empty at the end."""
        while True:
            found = _SPACE.match(self._window, self._at)
            self._pass(found.end() - self._at if found else 0)
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._fill(_CHUNK_CHARACTERS)

    def _expect(self, sign: str, meaning: str) -> None:
        if self._next() != sign:
            raise _NotJsonError(f"{self._window[self._at : self._at + 20]!r} instead of {meaning}", self._at)
        self._pass(1)

    def _fill(self, characters: int) -> None:
        more = self._text.read(characters)
        self._ended = not more
        self._window = self._window[self._at :] + more
        self._at = 0

    def _pass(self, characters: int) -> None:
        """Leave characters behind, counting lines and columns."""
        passed = self._window[self._at : self._at + max(characters, 0)]
        lines = passed.count("\n")
        self._line += lines
        self._column = len(passed) - passed.rfind("\n") if lines else self._column + len(passed)
        self._at += len(passed)
