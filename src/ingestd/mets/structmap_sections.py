"""The dmdSecs of a METS that came with the transfer, to which its structMap refers: as they can stand in ours.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from lxml import etree

from ingestd.mets.described import DC_KIND, Descriptions
from ingestd.mets.problems import Problems
from ingestd.mets.read_descriptions import read_description
from ingestd.mets.validation import forget
from ingestd.mets.vocabulary import METS
from ingestd.oais import NOWHERE, Description
from ingestd.tools.xml import Sections, root_of

_M = f"{{{METS}}}"


def described_in(path: Path) -> Iterator[tuple[str, Description]]:
    """The dmdSecs of a METS that is valid, by their IDs, as they are written; without those that would lose something.

    What refers to another file (`mdRef`), and elements with attributes that are not one document, are left out. That a
    document ends too early, `structmap.cut` tells.
    """
    with path.open("rb") as file, contextlib.suppress(etree.XMLSyntaxError):
        root_of(file)
        sections = Sections(file)
        for _, element in etree.iterparse(
            cast("Any", sections),
            events=("end",),
            tag=[f"{_M}dmdSec", f"{_M}amdSec", f"{_M}structMap"],
            resolve_entities=False,
            no_network=True,
            remove_comments=True,
            remove_pis=True,
            huge_tree=True,
        ):
            said = _description(element) if element.tag == f"{_M}dmdSec" else None
            if said is not None:
                yield element.get("ID", ""), said
            forget(element)
            sections.forgotten()


def dmd_sec(identifier: str, said: Description, created_at: datetime) -> str:
    """A section as text; `created_at` is when it was made unless it says so."""
    return Descriptions(created_at, Problems(), {}).dmd_sec(identifier, said)


def _description(section: etree._Element) -> Description | None:
    said = read_description(section, "")
    if said is None or said.reference or not (said.xml or _plain(section, said.kind)):
        return None
    return Description(
        target=NOWHERE,
        kind=said.kind,
        pairs=said.pairs,
        xml=said.xml,
        created_at=_time(said.created_at),
        standard=said.standard,
    )


def _plain(section: etree._Element, kind: str) -> bool:
    """Whether all that is said are names and values: Dublin Core, or elements without namespace."""
    elements = list(section.iterfind(f"{_M}mdWrap/{_M}xmlData/*"))
    if len(elements) == 1 and etree.QName(elements[0]).localname == "dublincore":
        return kind == DC_KIND and not any(len(one) or one.attrib for one in elements[0])
    return not any(len(one) or one.attrib or etree.QName(one).namespace for one in elements)


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
