"""Rights, further identifiers, and the agents of what others recorded, in a package's journal."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingestd.journal.database import Database, Row, Transaction
from ingestd.oais import Facts
from ingestd.premis import (
    Agent,
    AgentLink,
    DocumentationIdentifier,
    Identifier,
    RightsBasis,
    RightsGranted,
    RightsStatement,
    with_all_acts,
)

_AGENTS_AT_ONCE = 400
"""SQLite takes a limited number of parameters, and of rows in one VALUES."""


async def record_provenance(transaction: Transaction, facts: Facts) -> None:
    """Record rights, identifiers and linked agents; what is known already is left as it is."""
    await transaction.many(
        "INSERT OR IGNORE INTO rights (object, id, statement, act) VALUES (?, ?, ?, ?)",
        [values for statement in facts.rights for values in _rights_values(statement)],
    )
    await transaction.many(
        "INSERT OR IGNORE INTO identifier (object, type, value) VALUES (?, ?, ?)",
        [(one.object.bytes, one.type, one.value) for one in facts.identifiers],
    )
    await put_agents(transaction, "linked_agent", facts.agents)


async def put_agents(transaction: Transaction, table: str, agents: Sequence[Agent]) -> None:
    """Record agents, the package's own (`agent`) or those of others (`linked_agent`); a known one stays as it is."""
    await transaction.many(
        f"INSERT OR IGNORE INTO {table} (identifier_type, identifier, name, type, version) VALUES (?, ?, ?, ?, ?)",  # noqa: S608  constant
        [(agent.identifier_type, agent.identifier, agent.name, agent.type, agent.version) for agent in agents],
    )


async def rights_of(db: Database, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[RightsStatement]]:
    rows = await db.rows(
        f"SELECT object, statement, act FROM rights WHERE object IN ({_marks(objects)}) ORDER BY row",  # noqa: S608  marks
        [id_.bytes for id_ in objects],
    )
    found: dict[uuid.UUID, list[RightsStatement]] = {}
    for row in rows:
        statement = _rights_of(row)
        found.setdefault(statement.object, []).append(statement)
    return {id_: with_all_acts(statements) for id_, statements in found.items()}


async def identifiers_of(db: Database, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Identifier]]:
    rows = await db.rows(
        f"SELECT object, type, value FROM identifier WHERE object IN ({_marks(objects)}) ORDER BY row",  # noqa: S608  marks
        [id_.bytes for id_ in objects],
    )
    found: dict[uuid.UUID, list[Identifier]] = {}
    for raw, type_, value in rows:
        id_ = uuid.UUID(bytes=raw)
        found.setdefault(id_, []).append(Identifier(object=id_, type=type_, value=value))
    return found


async def agents_linked(db: Database, links: Sequence[AgentLink]) -> Mapping[AgentLink, Agent]:
    found: dict[AgentLink, Agent] = {}
    for start in range(0, len(links), _AGENTS_AT_ONCE):
        some = links[start : start + _AGENTS_AT_ONCE]
        rows = await db.rows(
            "SELECT identifier_type, identifier, name, type, version FROM linked_agent"  # noqa: S608  marks
            f" WHERE (identifier_type, identifier) IN (VALUES {', '.join(['(?, ?)'] * len(some))})",
            [word for link in some for word in (link.type, link.identifier)],
        )
        found |= {agent.link: agent for agent in map(agent_of, rows)}
    return found


async def event_types_imported(db: Database) -> Sequence[str]:
    return [row[0] for row in await db.rows("SELECT DISTINCT type FROM event WHERE agents <> '' ORDER BY type")]


def agent_of(row: Row) -> Agent:
    kind, identifier, name, type_, version = row
    return Agent(identifier_type=kind, identifier=identifier, name=name, type=type_, version=version)


def _rights_values(statement: RightsStatement) -> Iterator[tuple[Any, ...]]:
    """One row for each act, or one for a statement without any."""
    said = (statement.object.bytes, statement.id.bytes, statement.words)
    for act in statement.granted:
        yield *said, act.words
    if not statement.granted:
        yield *said, ""


def _rights_of(row: Row) -> RightsStatement:
    object_, statement, act = row
    words = json.loads(statement)
    words["basis"] = RightsBasis(words["basis"])
    words["documentation"] = [DocumentationIdentifier(**one) for one in words["documentation"]]
    words["agents"] = [AgentLink(*link) for link in words["agents"]]
    granted = [RightsGranted(**json.loads(act))] if act else []
    return RightsStatement(object=uuid.UUID(bytes=object_), granted=granted, **words)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
