"""Metadata sections as text: dmdSecs, and what else an amdSec holds besides PREMIS.

What is said stands in the METS itself (mdWrap), or is a file of the AIP that the METS refers to (mdRef).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ingestd.dublincore import DC_TERMS
from ingestd.mets.markup import UnfitElement, attribute, element_name, fit_element, href, text
from ingestd.mets.problems import Problems
from ingestd.mets.vocabulary import DC_LOCATION, mets_time
from ingestd.oais import Description, DescriptionStatus, File, escape_name

SUPERSEDED = "superseded"
"""STATUS of a techMD or rightsMD that a later one took the place of; Archivematica calls the later one `current`."""
DC_KIND = "DC"
"""The kind of description that is Dublin Core."""


def wrap(kind: str, content: str, *, other: str = "") -> str:
    """Give an mdWrap of MDTYPE `kind`, whose OTHERMDTYPE is `other`."""
    name = f' OTHERMDTYPE="{attribute(other)}"' if other else ""
    return f'<mets:mdWrap MDTYPE="{kind}"{name}>\n<mets:xmlData>\n{content}</mets:xmlData>\n</mets:mdWrap>\n'


def dmd_sec(
    dmd: str,
    created_at: datetime,
    content: str,
    status: DescriptionStatus = DescriptionStatus.ORIGINAL,
    group: str = "",
) -> str:
    grouped = f' GROUPID="{attribute(group)}"' if group else ""
    return (
        f'  <mets:dmdSec ID="{dmd}"{grouped} CREATED="{mets_time(created_at)}" STATUS="{status}">\n'
        f"{content}  </mets:dmdSec>\n"
    )


def request_description(
    dmd: str, metadata: Mapping[str, Sequence[str]], created_at: datetime, before: Description | None
) -> str:
    """Dublin Core of the package as the request gave it; in a reingest it takes the place of what was said `before`."""
    pairs = [(element, value) for element, values in metadata.items() for value in values]
    status = DescriptionStatus.UPDATE if before else DescriptionStatus.ORIGINAL
    return dmd_sec(dmd, created_at, _dublin_core(pairs), status, before.group if before else "")


class Descriptions:
    """Writes what is said of things. `references` are the files that a description may refer to, by id."""

    def __init__(self, created_at: datetime, problems: Problems, references: Mapping[uuid.UUID, File]) -> None:
        self._created_at = created_at
        self._problems = problems
        self._references = references

    def dmd_sec(self, dmd: str, said: Description) -> str:
        return dmd_sec(dmd, said.created_at or self._created_at, self._content(dmd, said), said.status, said.group)

    def source_md(self, row: int, said: Description) -> str:
        identifier = f"sourceMD_{row}"
        created = mets_time(said.created_at or self._created_at)
        return (
            f'    <mets:sourceMD ID="{identifier}" CREATED="{created}" STATUS="{said.status}">\n'
            f"{self._content(identifier, said)}    </mets:sourceMD>\n"
        )

    def superseded(self, row: int, said: Description) -> str:
        """PREMIS of an earlier version, in the section where it was."""
        identifier = f"{said.section}_before_{row}"
        created = mets_time(said.created_at or self._created_at)
        return (
            f'    <mets:{said.section} ID="{identifier}" CREATED="{created}" STATUS="{SUPERSEDED}">\n'
            f"{self._content(identifier, said)}    </mets:{said.section}>\n"
        )

    def _content(self, identifier: str, said: Description) -> str:
        if said.reference is not None:
            return self._reference(identifier, said)
        if said.xml:
            kind, other = (said.kind, "") if said.standard else ("OTHER", said.kind)
            return wrap(kind, self._element(identifier, said), other=other)
        if said.kind == DC_KIND:
            return _dublin_core(said.pairs)
        return wrap("OTHER", _elements(said.pairs), other=said.kind)

    def _element(self, identifier: str, said: Description) -> str:
        """The element, or, should it be none that can stand here, its text, which loses nothing but its use."""
        try:
            return f"{fit_element(said.xml, proven=True)}\n"
        except UnfitElement as error:
            self._problems.add(f"#{identifier}", f"mets.description.{said.kind}", str(error))
            return f"<text>{text(said.xml)}</text>\n"

    def _reference(self, identifier: str, said: Description) -> str:
        file = self._references.get(said.reference) if said.reference else None
        if file is None:
            self._problems.add(f"#{identifier}", f"mets.description.{said.kind}", "the file that it is in was removed")
            return wrap("OTHER", "<text/>\n", other=said.kind)
        label = attribute(escape_name(file.path.rpartition("/")[2]))
        return (
            f'<mets:mdRef LABEL="{label}" xlink:href="{href(file.path)}" MDTYPE="OTHER"'
            f' OTHERMDTYPE="{attribute(said.kind)}" LOCTYPE="OTHER" OTHERLOCTYPE="SYSTEM"/>\n'
        )


def _elements(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<{name}>{text(value)}</{name}>\n" for name, value in ((element_name(key), value) for key, value in pairs)
    )


def _dublin_core(pairs: Iterable[tuple[str, str]]) -> str:
    elements = "".join(
        f"<{name}>{text(value)}</{name}>\n" for name, value in ((_dc_name(key), value) for key, value in pairs)
    )
    content = f'<dcterms:dublincore xsi:schemaLocation="{DC_LOCATION}">\n{elements}</dcterms:dublincore>\n'
    return wrap("DC", content)


def _dc_name(key: str) -> str:
    prefix, dot, name = key.partition(".")
    if not dot:
        prefix, name = "dcterms" if key in DC_TERMS else "dc", key
    return f"{'dcterms' if prefix == 'dcterms' else 'dc'}:{element_name(name)}"
