"""Whether XML of others can stand in a METS, found out before it is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

from lxml import etree

from ingestd.mets.markup import UnfitElement, fit_element
from ingestd.mets.validation import combined_schema
from ingestd.mets.vocabulary import METS
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME

_AROUND = (
    f'<mets xmlns="{METS}"><dmdSec ID="d"><mdWrap MDTYPE="OTHER" OTHERMDTYPE="x">'
    "<xmlData>%s</xmlData></mdWrap></dmdSec><structMap><div/></structMap></mets>"
)


async def unfit(xml: str) -> str:
    """Say why one element cannot stand in a METS; empty where it can.

    PREMIS, XLink and `xsi:type` are let in where the schemas of METS and PREMIS find them valid.
    """
    return await asyncio.to_thread(_unfit, xml)


def _unfit(xml: str) -> str:
    try:
        fit_element(xml)
    except UnfitElement as error:
        strange = str(error)
    else:
        return ""
    try:
        element = fit_element(xml, proven=True)
    except UnfitElement as error:
        return str(error)
    with ONE_SCHEMA_AT_A_TIME:
        schema = combined_schema()
        document = etree.fromstring(_AROUND % element, etree.XMLParser(resolve_entities=False, no_network=True))
        if document.xpath("//@xmlID"):
            return "an identifier of PREMIS (xmlID), which another element of the METS may have"
        valid = schema.validate(document)
        if valid:
            return ""
        log: Any = schema.error_log
        [first, *_] = log
        return f"{strange}, which is not valid there: {first.message}"
