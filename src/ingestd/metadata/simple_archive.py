"""DSpace's Simple Archive Format: an item as a folder with `dublin_core.xml`, `contents` and the files it lists.

`contents` has a line for each file: its name and, after tabs, `bundle:…`, `description:…`, `permissions:…`; or, for
what DSpace only registers, `-r -s N -f PATH`. `metadata_SCHEMA.xml` says more, `handle` is the item's. What is read is
an `Export`, as the METS of DSpace's AIPs is. Everything here blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from ingestd.dublincore import DC_ELEMENTS, DC_TERMS
from ingestd.metadata.dspace import Bitstream, Export
from ingestd.metadata.xml import UnreadableError, read
from ingestd.oais import NOWHERE
from ingestd.premis import Restriction, RightsBasis, RightsGranted, RightsStatement

NAME = "dublin_core.xml"
CONTENTS = "contents"
HANDLE = "handle"
LIST_BYTES = 16 << 20
"""Largest `contents` that is read."""
_BESIDE = (CONTENTS, HANDLE, "collections", "relationships")
_TERMS = {name.lower(): name for name in DC_TERMS - DC_ELEMENTS}
_PERMISSION = re.compile(r"-(?P<act>[rw])\s+'(?P<group>[^']+)'")
_ACTS = {"r": "read", "w": "write"}
_REGISTERED = re.compile(r"-r\s.*-f\s+(?P<path>\S.*)")
_NOT_WORD = re.compile(r"\W+", re.ASCII)
_DERIVED = frozenset({"TEXT", "THUMBNAIL", "BRANDED_PREVIEW"})


def is_item(path: Path) -> bool:
    """Say whether a file is the `dublin_core.xml` of an item. Raises `OSError`."""
    return path.with_name(CONTENTS).is_file() and is_description(path)


def is_description(path: Path) -> bool:
    """Say whether a file is what a `dublin_core.xml` should be. Raises `OSError`."""
    try:
        return read(path).root.tag == "dublin_core"
    except UnreadableError:
        return False


def read_item(path: Path) -> Export:
    """Read an item by its `dublin_core.xml`. Raises `UnreadableError` for what is none, and `OSError`."""
    export = Export(documents=[path.name])
    for document in (path, *sorted(path.parent.glob("metadata_*.xml"))):
        _describe(document, export)
    for name in _BESIDE:
        if path.with_name(name).is_file():
            export.documents.append(name)
    export.documents += [one.name for one in sorted(path.parent.glob("metadata_*.xml"))]
    if path.with_name(HANDLE).is_file():
        export.handle = path.with_name(HANDLE).read_bytes()[:1000].decode("utf-8", errors="replace").strip()
    export.bitstreams += listed(path.with_name(CONTENTS))
    return export


def _describe(path: Path, export: Export) -> None:
    root = read(path).root
    if root.tag != "dublin_core":
        raise UnreadableError(f"the root element of {path.name} is {str(root.tag)[:200]}, not dublin_core")
    schema = root.get("schema", "dc")
    for one in root.iterfind("dcvalue"):
        value = " ".join((one.text or "").split())
        if value:
            _say(one, schema, value, export)


def _say(one: etree._Element, schema: str, value: str, export: Export) -> None:
    """One field: a term of Dublin Core by its qualifier or its element, any other as the site's own."""
    element, qualifier = one.get("element", ""), one.get("qualifier", "none")
    qualifier = "" if qualifier == "none" else qualifier
    term = _TERMS.get((qualifier or element).lower())
    if schema in {"dc", "dcterms"} and term:
        export.pairs.append((f"dcterms.{term}", value))
    elif schema in {"dc", "dcterms"} and element in DC_ELEMENTS:
        export.pairs.append((f"dc.{element}", value))
    else:
        name = _NOT_WORD.sub("_", "_".join(filter(None, (schema, element, qualifier)))).lower()
        export.custom.append((name if re.match(r"[a-z_]", name) else f"_{name}", value))


def listed(path: Path) -> Iterator[Bitstream]:
    """Read a file `contents`. Raises `UnreadableError`, `OSError`."""
    size = path.stat().st_size
    if size > LIST_BYTES:
        raise UnreadableError(f"{CONTENTS} has {size} bytes; the largest that is read has {LIST_BYTES}")
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UnreadableError(f"{CONTENTS}, line {number}: not UTF-8") from error
            if line.strip():
                yield _bitstream(number, line)


def _bitstream(number: int, line: str) -> Bitstream:
    first, *options = line.split("\t")
    registered = _REGISTERED.match(first)
    said = dict(option.strip().split(":", 1) for option in options if ":" in option)
    href = f"registered://{registered['path']}" if registered else first.strip()
    bundle = said.get("bundle", "LICENSE" if href == "license.txt" else "ORIGINAL").strip()
    granted = [
        RightsGranted(
            act=_ACTS[one["act"]],
            restrictions=(Restriction.CONDITIONAL,),
            notes=(f"group: {one['group']}",),
        )
        for one in _PERMISSION.finditer(said.get("permissions", ""))
    ]
    rights = RightsStatement(
        object=NOWHERE,
        basis=RightsBasis.OTHER,
        other_basis="permissions",
        notes=("permissions of DSpace",),
        granted=tuple(granted),
    )
    return Bitstream(
        line=number,
        href=href,
        bundle=bundle,
        # DSpace calls what it made of `a.pdf` `a.pdf.txt` or `a.pdf.jpg`.
        group=href.rpartition(".")[0] if bundle in _DERIVED else href,
        algorithm="",
        digest="",
        name=said.get("description", "").strip(),
        rights=(rights,) if granted else (),
    )
