"""The METS of an AIP as the records of a package again: what a reingest begins with.

Identifiers, names, times and words stay as they are written. What others recorded keeps its own agents, and is ours
only where its agents are those of the package that goes on with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath

from ingestd.aip.facts import algorithm_name
from ingestd.errors import Code, ContentError, Violation
from ingestd.metadata.premis_elements import read_rights
from ingestd.mets import TEXTS, ReadAgent, ReadDescription, ReadEntity, ReadEvent, ReadFile
from ingestd.oais import (
    Description,
    DescriptionStatus,
    Extension,
    Facts,
    File,
    FileUse,
    Section,
    Warning_,
    escape_name,
    unescape_name,
)
from ingestd.premis import (
    Agent,
    AgentLink,
    Digest,
    DigestAlgorithm,
    Event,
    EventType,
    Identifier,
    RightsStatement,
    time_in,
)

METS_BEFORE = "METS.before.xml"
"""The METS of the AIP as it was, in the package's working folder."""
_ROOTS = ("%transferDirectory%", "%SIPDirectory%")
_STATUSES = {
    "updated": DescriptionStatus.UPDATE,
    "superseded": DescriptionStatus.ORIGINAL_SUPERSEDED,
    **{str(status): status for status in DescriptionStatus},
}
_NOBODY = Agent(identifier_type="local", identifier="unknown", name="unknown", type="organization")
"""Who recorded an event that names nobody, in an amdSec that names nobody."""


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """What is the same for all records of an AIP. `own` are the package's agents; `at` is when it is reingested,
    `created_at` when its METS was created. Files of the uses `anew` are examined anew: what tools wrote of them before
    does not stay. With `may_supersede`, PREMIS objects may change.
    """

    package: uuid.UUID
    own: frozenset[AgentLink]
    algorithm: DigestAlgorithm
    at: datetime
    created_at: datetime
    may_supersede: bool = False
    anew: frozenset[FileUse] = frozenset()

    def file(self, said: ReadFile, path: str) -> File:
        """The file at `path`, without a digest where the METS has none of this algorithm.

        Raises `ContentError` for a fileGrp that is not known.
        """
        known = {algorithm_name(name): value.strip().lower() for name, value in said.digests.items()}
        value = known.get(self.algorithm)
        found = said.format
        return File(
            id=self.identifier(said.identifier),
            path=path,
            original=received_as(said.original_name) or path,
            use=_use(said),
            removed=said.removed,
            size_bytes=said.size_bytes or 0,
            digest=Digest(algorithm=self.algorithm, value=value, calculated_at=self.at) if value else None,
            modified_at=time_in(said.modified_at),
            format=found if found is not None and (found.puid or found.name not in ("", "Unknown")) else None,
            derived_from=self.identifier(said.derived_from) if said.derived_from else None,
            label=said.label,
        )

    def facts(self, said: ReadFile, file: File) -> Facts:
        """What the METS says of a file, with the event that it is taken up again."""
        statements, warnings = self._rights(said, file)
        events = [self._event(one, said, file) for one in said.events]
        kept = said.extensions if file.removed or file.use not in self.anew else ()
        again = Event(object=file.id, type=EventType.REINGESTION, at=self.at)
        nobody = [_NOBODY] if any(_NOBODY.link in event.agents for event in events) else []
        return Facts(
            files=[file],
            events=[*events, *([] if file.removed else [again])],
            extensions=[Extension(file=file.id, tool="METS", xml=xml) for xml in kept],
            rights=statements,
            identifiers=self.identifiers(file.id, said.identifiers),
            agents=nobody,
            warnings=warnings,
        )

    def _rights(self, said: ReadFile, file: File) -> tuple[list[RightsStatement], list[Warning_]]:
        statements: list[RightsStatement] = []
        warnings: list[Warning_] = []
        for xml in said.rights:
            try:
                statements += read_rights(xml, file.id, self.package)
            except ValueError as error:
                detail = f"a rights statement is left out: {error}"
                warnings.append(Warning_(code=Code.CONTENT_PREMIS_INVALID, detail=detail, path=escape_name(file.path)))
        return statements, warnings

    def _event(self, said: ReadEvent, of: ReadFile, file: File) -> Event:
        links = tuple(dict.fromkeys(said.agents or of.agents)) or (_NOBODY.link,)
        return Event(
            object=file.id,
            type=said.type,
            at=time_in(said.at) or self.at,
            detail=said.detail,
            outcome=said.outcome,
            note=said.note,
            agents=() if self.own == set(links) else links,
            said_at=said.at,
            id=self.identifier(said.identifier or f"{file.id} {said.type} {said.at}"),
        )

    def identifiers(self, object_: uuid.UUID, said: Sequence[tuple[str, str]]) -> list[Identifier]:
        return [Identifier(object=object_, type=kind, value=value) for kind, value in said]

    def identifier(self, said: str) -> uuid.UUID:
        """A UUID as it is; of any other identifier a UUID that is always the same."""
        try:
            return uuid.UUID(said)
        except ValueError:
            return uuid.uuid5(self.package, f"identifier:{said}")

    def former(self, said: ReadFile, file: File) -> list[Description]:
        """The PREMIS of a file that was superseded before, and the object that may now be, or that did it."""
        earlier = [self.description(one, file.id, None) for one in said.superseded]
        if said.object is None or file.removed or not (earlier or self.may_supersede):
            return earlier
        return [*earlier, replace(self.description(said.object, file.id, None), status=DescriptionStatus.ORIGINAL)]

    def description(self, said: ReadDescription, target: uuid.UUID, reference: uuid.UUID | None) -> Description:
        """What is said of `target`; its time tells it from what is said now."""
        return Description(
            target=target,
            kind=said.kind,
            pairs=said.pairs,
            section=Section(said.section),
            xml=said.xml,
            reference=reference,
            status=_STATUSES.get(said.status, DescriptionStatus.ORIGINAL),
            created_at=time_in(said.created_at) or self.created_at,
            group=said.group,
            standard=said.standard,
        )


def agent(said: ReadAgent) -> Agent:
    return Agent(
        identifier_type=said.identifier_type,
        identifier=said.identifier,
        name=said.name,
        type=said.type,
        version=said.version,
    )


def is_package(entity: ReadEntity) -> bool:
    """Whether an intellectual entity is the AIP itself: not below its root, nor called by a path."""
    return not entity.path and not entity.original_name.startswith(_ROOTS)


def received_as(original_name: str) -> str:
    """Where something was received, by its PREMIS originalName."""
    for root in _ROOTS:
        original_name = original_name.removeprefix(root)
    return unescape_name(original_name).strip("/")


def _use(said: ReadFile) -> FileUse:
    if said.removed:
        return _former_use(said)
    try:
        return FileUse(said.use)
    except ValueError as error:
        known = ", ".join(FileUse)
        violation = Violation(path=escape_name(said.path), rule="mets.fileGrp", expected=known, actual=said.use)
        raise ContentError(
            f"a fileGrp of the METS is not known here: {said.use!r}",
            code=Code.CONTENT_AIP_INVALID,
            violations=(violation,),
        ) from error


def _former_use(said: ReadFile) -> FileUse:
    """What a removed file was, which the METS does not say, as far as the METS is another for it."""
    if said.original_name.startswith(_ROOTS[0]):
        return FileUse.ORIGINAL
    if not said.derived_from:
        return FileUse.METADATA
    folder = PurePosixPath(received_as(said.original_name)).parent.name
    return FileUse.TEXT_OCR if folder == TEXTS else FileUse.PRESERVATION
