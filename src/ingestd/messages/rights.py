"""Rights and identifiers in a request: PREMIS rights statements, as JSON."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ingestd.messages.values import Incoming
from ingestd.oais import NOWHERE, RightsClaim
from ingestd.premis import (
    OPEN,
    DocumentationIdentifier,
    Restriction,
    RightsBasis,
    RightsGranted,
    RightsStatement,
)

_WANTED = {RightsBasis.COPYRIGHT: ("status", "jurisdiction"), RightsBasis.STATUTE: ("jurisdiction", "citation")}
"""What PREMIS wants to be said of a basis."""


def _capital(value: object) -> object:
    return value.capitalize() if isinstance(value, str) else value


def _date(value: str) -> str:
    return OPEN if value.lower() == OPEN.lower() else value


Words = Annotated[str, Field(max_length=4000)]
Said = Annotated[str, Field(min_length=1, max_length=4000)]
Date = Annotated[str, Field(pattern=r"^$|^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$")]
EndDate = Annotated[str, Field(pattern=r"^$|^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$|^(open|OPEN)$"), AfterValidator(_date)]


class RequestIdentifier(Incoming):
    """An identifier beside the AIP's UUID."""

    type: Said
    """For example `DOI` or `ARK`."""
    value: Said


class RequestDocumentation(Incoming):
    """Where the grounds of a right are documented."""

    type: Said
    value: Said
    role: Words = ""


class RequestAct(Incoming):
    """An act that is granted or restricted."""

    act: Said
    """For example `disseminate`, `replicate`, `use`."""
    restriction: Annotated[Restriction, BeforeValidator(_capital)]
    start_date: Date = ""
    """`YYYY`, `YYYY-MM` or `YYYY-MM-DD`."""
    end_date: EndDate = ""
    """The same, or `open`."""
    notes: list[Said] = Field(default_factory=list)


class RequestRights(Incoming):
    """One PREMIS rights statement: a basis, and the acts that it grants or restricts."""

    file: Annotated[str, Field(min_length=1, max_length=4096)] = "objects"
    """What it is about: a file or a folder by its path in the transfer, `objects/…`; by default the package."""
    basis: Annotated[RightsBasis, BeforeValidator(_capital)]
    other_basis: Words = ""
    """Which basis it is, where `basis` is `Other`."""
    status: Words = ""
    """Of a copyright: `copyrighted`, `public domain`, `unknown`."""
    jurisdiction: Words = ""
    """Of a copyright or statute: the country as ISO 3166 has it."""
    determination_date: Date = ""
    citation: Words = ""
    """Of a statute."""
    terms: Words = ""
    """Of a license."""
    start_date: Date = ""
    end_date: EndDate = ""
    notes: list[Said] = Field(default_factory=list)
    documentation: list[RequestDocumentation] = Field(default_factory=list)
    acts: list[RequestAct] = Field(default_factory=list)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in _WANTED.get(self.basis, ()) if not getattr(self, name)]
        if missing:
            msg = f"the basis {self.basis} needs {' and '.join(missing)}"
            raise ValueError(msg)
        return self

    def claim(self) -> RightsClaim:
        """What is said, as records have it."""
        statement = RightsStatement(
            object=NOWHERE,
            basis=self.basis,
            other_basis=self.other_basis,
            status=self.status,
            jurisdiction=self.jurisdiction,
            determination_date=self.determination_date,
            citation=self.citation,
            terms=self.terms,
            start=self.start_date,
            end=self.end_date,
            notes=self.notes,
            documentation=[
                DocumentationIdentifier(type=one.type, value=one.value, role=one.role) for one in self.documentation
            ],
            granted=[_granted(act) for act in self.acts],
        )
        return RightsClaim(paths=(self.file,), statement=statement)


def _granted(act: RequestAct) -> RightsGranted:
    return RightsGranted(
        act=act.act, restrictions=[act.restriction], start=act.start_date, end=act.end_date, notes=act.notes
    )
