"""The pointer file of a packed AIP: a small METS beside it, as Archivematica's Storage Service writes them.

It says what the package as a whole is and must be: PREMIS object with size, message digest and format, what happened to
it since the bag was made, and how to undo the packing step by step (`transformFile`). metsrw writes it and reads it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from lxml import etree

from ingestd.errors import Code, ContentError
from ingestd.mets.markup import plain
from ingestd.mets.transforms import Transform
from ingestd.mets.vocabulary import PREMIS_LOCATION, mets_time
from ingestd.premis import PROGRAM, Agent, AgentLink, Digest, Event, EventType, Format, now

KIND = "Archival Information Package"
"""METS USE and TYPE of the package, which metsrw and Archivematica look for."""
_VERSION = "3.0"
_PREMIS = {"xsi:schema_location": PREMIS_LOCATION, "version": _VERSION}
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_.\-]")
_Data: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointer:
    """What a pointer file says. `name` is the package's file name, `label` the name of the folder in it.

    `transforms` undo the packing, in their order. `keys` are fingerprints of those who can decrypt it; none: it is not
    encrypted. `agents` are the package's own: every event is linked to all of them, and to its programs.
    """

    package: uuid.UUID
    name: str
    label: str
    size_bytes: int
    digest: Digest
    format: Format
    program: str
    version: str
    packed_at: datetime
    transforms: Sequence[Transform]
    events: Sequence[Event]
    agents: Sequence[Agent]
    created_at: datetime
    keys: Sequence[str] = ()


def pointer_name(package: uuid.UUID) -> str:
    """What the pointer file of an AIP is called."""
    return f"pointer.{package}.xml"


def write_pointer(said: Pointer) -> bytes:
    """Write a pointer file; blocks. The same words give the same bytes."""
    import metsrw

    links = [agent.link for agent in said.agents]
    parts = [("techMD", "PREMIS:OBJECT", _object(said))]
    parts += [("digiprovMD", "PREMIS:EVENT", _event(event, links)) for event in said.events]
    programs = dict.fromkeys(program.agent for event in said.events for program in event.programs)
    parts += [("digiprovMD", "PREMIS:AGENT", _agent(agent)) for agent in (*said.agents, *programs)]
    entry = metsrw.FSEntry(
        path=said.name,
        fileid=f"file-{_NOT_IN_ID.sub('_', said.label)}",
        label=said.name,
        use=KIND,
        type=KIND,
        file_uuid=str(said.package),
        transform_files=[_transform(one) for one in said.transforms],
    )
    created = mets_time(said.created_at)
    entry.amdsecs.append(_amd_sec(parts, created))
    document = metsrw.METSDocument()
    document.append_file(entry)
    return _text(document, created)


def replicated(pointer: bytes, package: uuid.UUID, *, source: str, target: str) -> bytes:
    """Give the pointer file of a copy: it says from which place to which the package was copied; blocks.

    Raises `ContentError` (`content.metadata_invalid`) for what is no pointer file.
    """
    import metsrw

    detail = f'source="{source}"; target="{target}"'
    copied = Event(object=package, type=EventType.REPLICATION, at=now(), detail=detail)
    try:
        return _with_event(pointer, copied)
    except (metsrw.MetsError, etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise ContentError(
            f"{pointer_name(package)} on {source} cannot be read: {error}",
            code=Code.CONTENT_METADATA_INVALID,
            remediation="Put the pointer file of another copy in its place; `ingestd aip verify` says which are good.",
        ) from error


def _with_event(pointer: bytes, event: Event) -> bytes:
    """Give a pointer file with one more event, linked to its agents; blocks."""
    import metsrw

    document = metsrw.METSDocument.fromstring(pointer)
    (entry,) = document.all_files()
    links = [
        AgentLink(agent.identifier_type, agent.identifier_value)
        for agent in entry.get_premis_agents()
        if agent.identifier_type != PROGRAM
    ]
    number = sum(part.subsection == "digiprovMD" for part in entry.amdsecs[0].subsections) + 1
    part = _subsection(f"digiprovMD_{number}", "PREMIS:EVENT", _event(event, links), mets_time(event.at))
    entry.amdsecs[0].subsections.append(part)
    return _text(document, document.createdate)


def _amd_sec(parts: Sequence[tuple[str, str, _Data]], created: str) -> Any:
    import metsrw

    subsections = []
    numbers: dict[str, int] = {}
    for section, kind, data in parts:
        numbers[section] = numbers.get(section, 0) + 1
        subsections.append(_subsection(f"{section}_{numbers[section]}", kind, data, created))
    return metsrw.AMDSec(section_id="amdSec_1", subsections=subsections)


def _subsection(identifier: str, kind: str, data: _Data, created: str) -> Any:
    import metsrw
    from metsrw.plugins import premisrw

    wrap = metsrw.MDWrap(premisrw.data_to_premis(data, premis_version=_VERSION), kind)
    part = metsrw.SubSection(identifier.partition("_")[0], wrap, section_id=identifier)
    part.created = created
    return part


def _text(document: Any, created: str) -> bytes:
    """Serialize without the time of writing, and without a second structMap."""
    from lxml import etree

    root = document.serialize(normative_structmap=False)
    header = root[0]
    header.set("CREATEDATE", created)
    header.attrib.pop("LASTMODDATE", None)
    etree.cleanup_namespaces(root)
    return etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="UTF-8")


def _transform(one: Transform) -> dict[str, str]:
    said = {"type": one.kind, "algorithm": one.algorithm, "order": one.order}
    return {**said, "key": one.key} if one.key else said


def _object(said: Pointer) -> _Data:
    designation: _Data = ("format_designation", ("format_name", said.format.name))
    registry: list[_Data] = []
    if said.format.puid:
        keyed = (("format_registry_name", "PRONOM"), ("format_registry_key", said.format.puid))
        registry = [("format_registry", *keyed)]
    inhibitors = [("inhibitors", ("inhibitor_type", "GPG"), ("inhibitor_target", "All content"))] if said.keys else []
    return (
        "object",
        {"xsi:type": "premis:file", **_PREMIS},
        ("object_identifier", ("object_identifier_type", "UUID"), ("object_identifier_value", str(said.package))),
        (
            "object_characteristics",
            ("composition_level", "2" if said.keys else "1"),
            (
                "fixity",
                ("message_digest_algorithm", said.digest.algorithm),
                ("message_digest", said.digest.value),
            ),
            ("size", str(said.size_bytes)),
            ("format", designation, *registry),
            (
                "creating_application",
                ("creating_application_name", plain(said.program)),
                *([("creating_application_version", plain(said.version))] if said.version else []),
                ("date_created_by_application", f"{mets_time(said.packed_at)}Z"),
            ),
            *inhibitors,
        ),
    )


def _event(event: Event, links: Sequence[AgentLink]) -> _Data:
    note = (("event_outcome_detail", ("event_outcome_detail_note", plain(event.note))),) if event.note else ()
    outcome = (("event_outcome", plain(event.outcome)),) if event.outcome else ()
    return (
        "event",
        _PREMIS,
        ("event_identifier", ("event_identifier_type", "UUID"), ("event_identifier_value", str(event.id))),
        ("event_type", event.type),
        ("event_date_time", event.at.isoformat(timespec="microseconds")),
        ("event_detail_information", ("event_detail", plain(event.detail))),
        *((("event_outcome_information", *outcome, *note),) if outcome or note else ()),
        *(
            (
                "linking_agent_identifier",
                ("linking_agent_identifier_type", link.type),
                ("linking_agent_identifier_value", plain(link.identifier)),
                *((("linking_agent_role", link.role),) if link.role else ()),
            )
            for link in (*links, *(program.link for program in event.programs))
        ),
    )


def _agent(agent: Agent) -> _Data:
    return (
        "agent",
        _PREMIS,
        (
            "agent_identifier",
            ("agent_identifier_type", agent.identifier_type),
            ("agent_identifier_value", plain(agent.identifier)),
        ),
        ("agent_name", plain(agent.name)),
        ("agent_type", agent.type),
        *([("agent_version", plain(agent.version))] if agent.version else []),
    )
