"""Rights statements that a METS holds, in words that can be counted and compared."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

from ingestd.metadata.premis_elements import read_rights
from ingestd.premis import RightsGranted, RightsStatement

_NOTHING = uuid.UUID(int=0)


def rights_in_words(xml: str, package: str) -> Iterator[tuple[bool, str]]:
    """Whether a `rightsStatement` is about the package as a whole, and what it says, as JSON: basis, grounds, acts."""
    whole = _uuid(package)
    try:
        said = read_rights(xml, _NOTHING, whole)
    except ValueError as error:
        yield False, _words("cannot be read", str(error), [])
        return
    for statement in said:
        about_all = statement.object == whole != _NOTHING
        basis = statement.other_basis or str(statement.basis)
        yield about_all, _words(basis, _grounds(statement), [_act(act) for act in statement.granted])


def _words(basis: str, grounds: str, acts: list[str]) -> str:
    return json.dumps({"basis": basis, "grounds": grounds, "acts": acts}, ensure_ascii=False)


def _grounds(said: RightsStatement) -> str:
    documents = [" ".join(filter(None, (one.type, one.value, one.role))) for one in said.documentation]
    words = (said.status, said.citation, said.terms, said.jurisdiction, said.determination_date)
    return "; ".join(filter(None, (*words, _dates(said.start, said.end), *said.notes, *documents)))


def _act(act: RightsGranted) -> str:
    words = (f"{act.act}: {', '.join(act.restrictions)}", _dates(act.start, act.end), *act.notes)
    return "; ".join(filter(None, words)).removesuffix(": ")


def _dates(start: str, end: str) -> str:
    return f"{start} to {end}" if start and end else start or (f"to {end}" if end else "")


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        return _NOTHING
