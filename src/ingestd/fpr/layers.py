"""Reading of the registry's layers: folders of CSV and TOML files.

A layer is a folder. A CSV file holds records of one kind, a line each, and is called after it: `groups.csv`,
`formats.csv`, `versions.csv`, `rules.csv`, `disable.csv`, or with a word of its own behind a hyphen, `rules-video.csv`.
A TOML file may hold records of every kind, in tables: `[[command]]`, `[[rule]]`, `[[disable]]`, … . Files are read in
the order of their names; everything else in the folder is left alone, so that a mounted ConfigMap is a layer as it is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingestd.errors import Violation
from ingestd.fpr.records import RECORDS, Kind, Record

SHIPPED = "shipped"
REQUEST = "request"
ALL = "*"
"""The id in `disable` that stands for every record of a kind in the layers below."""
_CSV_KINDS = {f"{kind.value}s": kind for kind in Kind}
_DISABLE = "disable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One record as one layer has it. `layer` is `shipped`, the name of a site's folder, or `request`."""

    layer: str
    file: str
    record: Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Disabled:
    """A layer's word that a record of a lower layer takes no part any more; `id` may be `*`."""

    layer: str
    file: str
    kind: Kind
    id: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """What one folder holds; `problems` are the records in it that could not be read."""

    name: str
    entries: Sequence[Entry]
    disabled: Sequence[Disabled]
    problems: Sequence[Violation]
    digest: str


def shipped_layer() -> Layer:
    """Read the registry that ingestd ships."""
    return _read(SHIPPED, resources.files("ingestd.fpr") / "data")


def site_layer(folder: Path) -> Layer:
    """Read a site's folder. A folder that cannot be read is a problem of the layer, not an empty layer."""
    if not folder.is_dir():
        problem = Violation(path=str(folder), rule="folder-missing", expected="a folder that can be read")
        return Layer(name=folder.name, entries=(), disabled=(), problems=(problem,), digest="")
    return _read(folder.name, folder)


def request_layer(overrides: Mapping[str, Any]) -> Layer:
    """Make a layer of what one request asks for: its own rules, and shipped or site rules that it does without.

    `overrides` has the tables of a TOML layer, of which a request may have `rule` and `disable` (of rules): it chooses
    among commands, and brings none.
    """
    reading = _Reading(layer=REQUEST)
    for word in sorted(set(overrides) - {Kind.RULE.value, _DISABLE}):
        reading.problems.append(Violation(path=word, rule="not-allowed", expected="rule, disable"))
    for table in _tables(overrides, Kind.RULE.value, reading.problems):
        reading.take_record(Kind.RULE, "rule", table)
    for table in _tables(overrides, _DISABLE, reading.problems):
        reading.take_disabled(_DISABLE, {"kind": Kind.RULE.value, **table})
    for item in reading.disabled:
        if item.kind is not Kind.RULE:
            reading.problems.append(Violation(path=f"disable {item.kind} {item.id}", rule="not-allowed"))
    digest = hashlib.sha256(json.dumps(overrides, sort_keys=True, default=str).encode()).hexdigest()
    return reading.layer_of(digest)


def _tables(overrides: Mapping[str, Any], word: str, problems: list[Violation]) -> list[dict[str, Any]]:
    tables = overrides.get(word, [])
    if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
        return tables
    problems.append(Violation(path=word, rule="not-tables", expected="a list of tables", actual=str(tables)[:200]))
    return []


def _read(name: str, folder: Traversable) -> Layer:
    reading = _Reading(layer=name)
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.startswith(".") or not file.name.endswith((".csv", ".toml")):
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            said = error.strerror or str(error)
            reading.problems.append(Violation(path=f"{name}/{file.name}", rule="file-unreadable", actual=said))
            continue
        digest.update(f"{file.name}\0{len(content)}\0".encode())
        digest.update(content)
        for kind, where, values in _rows(file.name, content, reading):
            if kind is None:
                reading.take_disabled(where, values)
            else:
                reading.take_record(kind, where, values)
    return reading.layer_of(digest.hexdigest())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """A layer while its files are read."""

    layer: str
    entries: list[Entry] = field(default_factory=list)
    disabled: list[Disabled] = field(default_factory=list)
    problems: list[Violation] = field(default_factory=list)

    def layer_of(self, digest: str) -> Layer:
        return Layer(
            name=self.layer, entries=self.entries, disabled=self.disabled, problems=self.problems, digest=digest
        )

    def take_record(self, kind: Kind, where: str, values: dict[str, Any]) -> None:
        try:
            record = RECORDS[kind].model_validate(values)
        except ValidationError as error:
            label = f"{kind} {values.get('id') or values}"
            self.problems.extend(violations(f"{self.layer}/{where}: {label}", error))
        else:
            self.entries.append(Entry(layer=self.layer, file=where, record=record))

    def take_disabled(self, where: str, values: dict[str, Any]) -> None:
        kind, record = values.get("kind"), values.get("id")
        if kind not in list(Kind) or not isinstance(record, str):
            path, said = f"{self.layer}/{where}", str(values)
            self.problems.append(Violation(path=path, rule="disable-incomplete", expected="kind and id", actual=said))
            return
        reason = str(values.get("reason", ""))
        self.disabled.append(Disabled(layer=self.layer, file=where, kind=Kind(str(kind)), id=record, reason=reason))


def _rows(name: str, content: bytes, reading: _Reading) -> Iterator[tuple[Kind | None, str, dict[str, Any]]]:
    """Give every record of a file with its kind (None: disables another one) and where it stands."""
    try:
        text = content.decode("utf-8-sig")
        rows = list(_csv_rows(name, text) if name.endswith(".csv") else _toml_rows(name, text))
    except (ValueError, csv.Error) as error:
        path = f"{reading.layer}/{name}"
        reading.problems.append(Violation(path=path, rule="file-unreadable", actual=str(error)))
        return
    yield from rows


def _csv_rows(name: str, text: str) -> Iterator[tuple[Kind | None, str, dict[str, Any]]]:
    word = name.removesuffix(".csv").partition("-")[0]
    if word != _DISABLE and word not in _CSV_KINDS:
        raise ValueError(f"no kind of record is called {word}; there are {', '.join([*_CSV_KINDS, _DISABLE])}")
    kind = _CSV_KINDS.get(word)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more columns than the first line")
        yield kind, f"{name}:{reader.line_num}", {key: value for key, value in row.items() if value}


def _toml_rows(name: str, text: str) -> Iterator[tuple[Kind | None, str, dict[str, Any]]]:
    for word, tables in tomllib.loads(text).items():
        if word != _DISABLE and word not in list(Kind):
            raise ValueError(f"no kind of record is called {word}; there are {', '.join([*Kind, _DISABLE])}")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ValueError(f"{word} is not a list of tables: write [[{word}]]")
        for table in tables:
            yield (None if word == _DISABLE else Kind(word)), name, table


def violations(path: str, error: ValidationError) -> list[Violation]:
    """Say each thing that a model refused as a violation at `path`."""
    return [
        Violation(
            path=f"{path}: {'.'.join(map(str, item['loc']))}".removesuffix(": "),
            rule=item["type"],
            expected=item["msg"],
            actual=str(item["input"])[:200],
        )
        for item in error.errors(include_url=False, include_context=False)
    ]
