"""Whether XML of others can stand in a METS, found out before it is recorded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from lxml import etree

from ingestd.mets.markup import UnfitElement, fit_element
from ingestd.mets.validation import combined_schema
from ingestd.mets.vocabulary import METS
from ingestd.oais import Description, Section
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME

_OBJECT = "PREMIS:OBJECT"
_FILE = re.compile(r"""<([\w.-]+:)?object\s[^<>]*:type=["'][\w.-]+:file["']""")
_AROUND = (
    f'<mets xmlns="{METS}"><dmdSec ID="d"><mdWrap MDTYPE="OTHER" OTHERMDTYPE="x">'
    "<xmlData>%s</xmlData></mdWrap></dmdSec><structMap><div/></structMap></mets>"
)


async def unfit(xml: str) -> str:
    """Say why one element cannot stand in a METS; empty where it can.

    PREMIS, XLink and `xsi:type` are let in where the schemas of METS and PREMIS find them valid.
    """
    return await asyncio.to_thread(why_unfit, xml)


async def unfit_premis(parts: Sequence[Description]) -> Sequence[str]:
    """Say of what was PREMIS in an earlier METS, techMDs and rightsMDs, why each cannot stand in a METS."""
    return await asyncio.to_thread(_unfit_each, parts)


def _unfit_each(parts: Sequence[Description]) -> Sequence[str]:
    if not parts:
        return []
    with ONE_SCHEMA_AT_A_TIME:
        schema = combined_schema()
        return [_unfit_premis(one, schema) for one in parts]


def _unfit_premis(said: Description, schema: etree.XMLSchema) -> str:
    if not said.xml or not said.kind.startswith("PREMIS"):
        return "it is not PREMIS"
    if said.section is Section.TECHNICAL and not (said.kind == _OBJECT and _FILE.match(said.xml)):
        return "it is not the PREMIS object of a file"
    return _invalid(said.xml, schema, "PREMIS")


def why_unfit(xml: str) -> str:
    """What `unfit` says; blocks."""
    try:
        fit_element(xml)
    except UnfitElement as error:
        strange = str(error)
    else:
        return ""
    with ONE_SCHEMA_AT_A_TIME:
        return _invalid(xml, combined_schema(), strange)


def _invalid(xml: str, schema: etree.XMLSchema, strange: str) -> str:
    """Say why the schemas do not let an element in; `strange` is what is not let in without asking them."""
    try:
        element = fit_element(xml, proven=True)
    except UnfitElement as error:
        return str(error)
    document = etree.fromstring(_AROUND % element, etree.XMLParser(resolve_entities=False, no_network=True))
    if document.xpath("//@xmlID"):
        return "an identifier of PREMIS (xmlID), which another element of the METS may have"
    if schema.validate(document):
        return ""
    log: Any = schema.error_log
    [first, *_] = log
    return f"{strange}, which is not valid there: {first.message}"
