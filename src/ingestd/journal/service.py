"""The service's journal: which requests there are and how far they are, and the outbox of what is to be published."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from ingestd.journal.database import Database, Transaction
from ingestd.journal.requests import REQUEST_COLUMNS, OutboxItem, RequestRecord, Tombstone, request_of
from ingestd.journal.rules import RuleCount, add_up
from ingestd.messages import Event, RequestEnvelope, RequestState
from ingestd.premis import now

EMBEDDED = "embedded"
_ADDED_LATER = {"request": {"reopened_at": "TEXT", "untold": "INTEGER NOT NULL DEFAULT 0"}, "tombstone": {"at": "TEXT"}}
"""Columns that journals of earlier versions do not have."""


class ServiceJournal:
    """Requests and outbox, in one database, so that a change of state and its event become true together."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.outbox_grew = asyncio.Event()
        """Set when something is put into the outbox."""

    @classmethod
    async def open(cls, path: Path) -> Self:
        return cls(await Database.open(path, "service.sql", _ADDED_LATER))

    async def close(self) -> None:
        await self._db.close()

    async def add(
        self,
        envelope: RequestEnvelope,
        *,
        origin: str,
        reply_to: str | None = None,
        correlation: str | None = None,
        attempt: int = 1,
        state: RequestState = RequestState.RECEIVED,
        asked_at: datetime | None = None,
    ) -> RequestRecord:
        """Journal a request that is new here; `asked_at` is when some worker took it first."""
        package = envelope.data.package_id()
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute(
                "INSERT INTO request (package, request, origin, content_digest, envelope, state, attempt, sequence,"
                " reply_to, correlation, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
                (
                    str(package),
                    envelope.id,
                    origin,
                    envelope.data.content_digest(),
                    envelope.model_dump_json(),
                    state,
                    attempt,
                    reply_to,
                    correlation,
                    (asked_at or now()).isoformat(),
                ),
            )
        return await self._there(package)

    async def forget(self, package: uuid.UUID) -> None:
        """Forget a request, and its results that are confirmed: it may be journalled anew."""
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute("DELETE FROM request WHERE package = ?", (str(package),))
            await transaction.execute(
                "DELETE FROM outbox WHERE package = ? AND confirmed_at IS NOT NULL", (str(package),)
            )

    async def reopen(self, package: uuid.UUID, attempt: int) -> RequestRecord:
        """Take back a request's end: it is to be done again, as the attempt of this number.

        What was rejected is looked at anew.
        """
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute(
                "UPDATE request SET attempt = ?, sequence = 0, state = CASE state WHEN ? THEN ? ELSE ? END,"
                " result = NULL, started_at = NULL,"
                " finished_at = NULL, untold = 0, reopened_at = ? WHERE package = ?",
                (
                    attempt,
                    RequestState.REJECTED,
                    RequestState.RECEIVED,
                    RequestState.ACCEPTED,
                    now().isoformat(),
                    str(package),
                ),
            )
            await _forget_tombstones(transaction, package)
        return await self._there(package)

    async def begin_attempt(self, package: uuid.UUID, attempt: int, told: int = 0) -> RequestRecord:
        """Go on with a request under another number; its events are numbered anew, after those that others `told`."""
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute(
                "UPDATE request SET attempt = ?, sequence = ? WHERE package = ?", (attempt, told, str(package))
            )
        return await self._there(package)

    async def adopt(self, package: uuid.UUID, result: Event, *, publish: bool) -> RequestRecord:
        """Take over a result that another worker came to. `publish`: it is not known to have been published."""
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute(
                "UPDATE request SET attempt = ? WHERE package = ?", (result.data.attempt, str(package))
            )
            if publish:
                await self._to_outbox(transaction, package, result)
            await self._answer_all(transaction, package, result)
            await _set_state(transaction, package, result.data.state, result)
        return await self._there(package)

    async def _there(self, package: uuid.UUID) -> RequestRecord:
        found = await self.get(package)
        assert found is not None  # noqa: S101  the caller has it
        return found

    async def find(self, name: str) -> Sequence[RequestRecord]:
        """The requests of this id, or of this package, the youngest first."""
        sql = f"SELECT {REQUEST_COLUMNS} FROM request WHERE request = ? OR package = ? ORDER BY created_at DESC"  # noqa: S608  constant
        return [request_of(row) for row in await self._db.rows(sql, (name, name.lower()))]

    async def get(self, package: uuid.UUID) -> RequestRecord | None:
        row = await self._db.row(f"SELECT {REQUEST_COLUMNS} FROM request WHERE package = ?", (str(package),))  # noqa: S608  constant
        return request_of(row) if row else None

    async def unfinished(self, origin: str | None = None) -> Sequence[RequestRecord]:
        """Requests without a terminal state, the oldest first."""
        sql = f"SELECT {REQUEST_COLUMNS} FROM request WHERE finished_at IS NULL AND origin = coalesce(?, origin)"  # noqa: S608  constant
        return [request_of(row) for row in await self._db.rows(f"{sql} ORDER BY created_at", (origin,))]

    async def unanswered(self, content_digest: str) -> Sequence[RequestRecord]:
        """What was asked for without a broker, and has no result that anybody was told: unfinished, or untold. The
        oldest first.
        """
        sql = (
            f"SELECT {REQUEST_COLUMNS} FROM request WHERE content_digest = ? AND origin = ?"  # noqa: S608  constant
            " AND (finished_at IS NULL OR untold) ORDER BY created_at"
        )
        return [request_of(row) for row in await self._db.rows(sql, (content_digest, EMBEDDED))]

    async def told(self, package: uuid.UUID) -> None:
        """Who asked for this without a broker has its result. A power cut may take that back: it is told once more."""
        async with self._db.transaction() as transaction:
            await transaction.execute("UPDATE request SET untold = 0 WHERE package = ?", (str(package),))

    async def ended_as(self, state: RequestState) -> Sequence[RequestRecord]:
        """Requests that ended in this state, the oldest first."""
        sql = f"SELECT {REQUEST_COLUMNS} FROM request WHERE state = ? ORDER BY created_at"  # noqa: S608  constant
        return [request_of(row) for row in await self._db.rows(sql, (state,))]

    async def next_sequence(self, package: uuid.UUID) -> int:
        """Take the next number of this attempt's events."""
        async with self._db.transaction() as transaction:
            return await _next_sequence(transaction, package)

    async def advance(
        self,
        package: uuid.UUID,
        state: RequestState,
        event: Event,
        *,
        publish: bool,
        rules: Sequence[RuleCount] = (),
    ) -> Event:
        """Change a request's state and write the event that says so, in one transaction.

        The event's `sequence` is set here, unless it has one; the complete event is returned. A terminal state keeps it
        as the request's result and is waited for on disk. `publish` puts it in the outbox; without, it is untold until
        `told`, but for a refusal: nothing was done, and whoever asks again is better looked at anew. `rules` are the
        package's counts over all its attempts: what is new of them is added to the service's.
        """
        async with self._db.transaction(durable=state.terminal) as transaction:
            sequence = event.data.sequence or await _next_sequence(transaction, package)
            data = event.data.model_copy(update={"sequence": sequence, "state": state})
            event = event.model_copy(update={"data": data})
            if publish:
                await self._to_outbox(transaction, package, event)
                if state.terminal:
                    await self._answer_all(transaction, package, event)
            untold = not publish and state is not RequestState.REJECTED
            await _set_state(transaction, package, state, event, untold=untold)
            if state.terminal and publish:
                await transaction.execute(
                    "INSERT OR IGNORE INTO uncounted SELECT package FROM request"
                    " WHERE package = ? AND json_extract(envelope, '$.data.batch.id') IS NOT NULL",
                    (str(package),),
                )
            await add_up(transaction, package, rules)
        return event

    async def await_result(
        self, package: uuid.UUID, envelope: RequestEnvelope, *, reply_to: str | None, correlation: str | None
    ) -> bool:
        """Somebody asks by another id for what is at work: the answer is written with the result.

        Says False, and does nothing, when the result is there already.
        """
        values = (str(package), envelope.id, envelope.source, envelope.model_dump_json(), reply_to, correlation)
        async with self._db.transaction(durable=True) as transaction:
            ended = await transaction.row(
                "SELECT 1 FROM request WHERE package = ? AND finished_at IS NOT NULL", (str(package),)
            )
            if ended is None:
                await transaction.execute(
                    "INSERT OR IGNORE INTO asker (package, request, source, envelope, reply_to, correlation)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    values,
                )
        return ended is None

    async def uncounted(self) -> Sequence[RequestRecord]:
        """Requests of batches that have ended, and that their batches do not know of yet."""
        sql = f"SELECT {REQUEST_COLUMNS} FROM request WHERE package IN (SELECT package FROM uncounted)"  # noqa: S608  constant
        return [request_of(row) for row in await self._db.rows(sql)]

    async def counted(self, package: uuid.UUID) -> None:
        async with self._db.transaction() as transaction:
            await transaction.execute("DELETE FROM uncounted WHERE package = ?", (str(package),))

    async def was_answered(self, package: uuid.UUID, envelope: RequestEnvelope) -> bool:
        """Whether a request under another id had its answer."""
        row = await self._db.row(
            "SELECT answered FROM asker WHERE package = ? AND request = ? AND source = ?",
            (str(package), envelope.id, envelope.source),
        )
        return row is not None and bool(row[0])

    # --- cancellations -----------------------------------------------------------------------------------------------

    async def bury(self, tombstone: Tombstone, until: datetime) -> None:
        """Keep a cancellation, whether its request is here yet or not."""
        async with self._db.transaction(durable=True) as transaction:
            await transaction.execute("DELETE FROM tombstone WHERE until < ?", (now().isoformat(),))
            await transaction.execute(
                "INSERT OR REPLACE INTO tombstone (request, tenant, reason, until, at) VALUES (?, ?, ?, ?, ?)",
                (
                    tombstone.request,
                    tombstone.tenant or "",
                    tombstone.reason,
                    until.isoformat(),
                    tombstone.at.isoformat(),
                ),
            )

    async def tombstones(self) -> Sequence[Tombstone]:
        rows = await self._db.rows(
            "SELECT request, tenant, reason, coalesce(at, until) FROM tombstone WHERE until >= ?", (now().isoformat(),)
        )
        return [
            Tombstone(request=request, tenant=tenant or None, reason=reason, at=datetime.fromisoformat(at))
            for request, tenant, reason, at in rows
        ]

    async def publish(
        self, event: Event, *, package: uuid.UUID | None, reply_to: str | None, correlation: str | None
    ) -> None:
        """Put an event in the outbox that changes no state: the answer to a message that was refused at the door, or
        the result of a finished request once more. One that waits there already, for the same, is not put in again.
        """
        async with self._db.transaction(durable=True) as transaction:
            reply_to, correlation = await _addressed(transaction, package, reply_to, correlation)
            waits = await transaction.row(
                "SELECT 1 FROM outbox WHERE confirmed_at IS NULL AND json_extract(event, '$.id') = ?"
                " AND reply_to IS ? AND correlation IS ?",
                (event.id, reply_to, correlation),
            )
            if waits is None:
                await self._to_outbox(transaction, package, event, reply_to=reply_to, correlation=correlation)

    async def outbox(self, limit: int) -> Sequence[OutboxItem]:
        """What is not confirmed yet, in order."""
        rows = await self._db.rows(
            "SELECT row, event, reply_to, correlation FROM outbox WHERE confirmed_at IS NULL ORDER BY row LIMIT ?",
            (limit,),
        )
        return [
            OutboxItem(id=row, event=Event.model_validate_json(event), reply_to=reply_to, correlation_id=correlation)
            for row, event, reply_to, correlation in rows
        ]

    async def confirm(self, rows: Sequence[int]) -> set[uuid.UUID]:
        """The broker has them; gives the packages whose results are among them.

        What is not a result is forgotten at once, results by `prune`.
        """
        async with self._db.transaction() as transaction:
            await transaction.many("DELETE FROM outbox WHERE row = ? AND terminal = 0", [(row,) for row in rows])
            stamp = now().isoformat()
            await transaction.many("UPDATE outbox SET confirmed_at = ? WHERE row = ?", [(stamp, row) for row in rows])
            marks = ", ".join("?" * len(rows))
            found = await transaction.rows(
                f"SELECT DISTINCT package FROM outbox WHERE package IS NOT NULL AND row IN ({marks})",  # noqa: S608  marks
                rows,
            )
        return {uuid.UUID(row[0]) for row in found}

    async def is_to_be_told(self, request: str) -> bool:
        """Whether something is still to be published under this id of a request."""
        row = await self._db.row(
            "SELECT 1 FROM outbox WHERE confirmed_at IS NULL AND json_extract(event, '$.data.request_id') = ? LIMIT 1",
            (request,),
        )
        return row is not None

    async def prune(self, before: datetime) -> None:
        """Forget results that were published before that time; a request keeps its own, to be told again."""
        async with self._db.transaction() as transaction:
            stamp = before.isoformat()
            await transaction.execute("DELETE FROM outbox WHERE confirmed_at < ?", (stamp,))
            await transaction.execute("DELETE FROM tombstone WHERE until < ?", (now().isoformat(),))

    async def result_confirmed(self, package: uuid.UUID) -> bool:
        row = await self._db.row(
            "SELECT count(*) FROM outbox WHERE package = ? AND terminal = 1 AND confirmed_at IS NULL", (str(package),)
        )
        return row is not None and row[0] == 0

    async def rule_counts(self) -> Sequence[RuleCount]:
        """How often the rules of the format policy registry were followed for requests that ended."""
        rows = await self._db.rows("SELECT rule, command, attempts, okay FROM rule_count ORDER BY rule, command")
        return [RuleCount(rule=row[0], command=row[1], attempts=row[2], okay=row[3]) for row in rows]

    async def count_unconfirmed(self) -> int:
        row = await self._db.row("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL")
        return int(row[0]) if row else 0

    async def _to_outbox(
        self,
        transaction: Transaction,
        package: uuid.UUID | None,
        event: Event,
        *,
        reply_to: str | None = None,
        correlation: str | None = None,
    ) -> None:
        reply_to, correlation = await _addressed(transaction, package, reply_to, correlation)
        self.outbox_grew.set()  # whoever reads it now waits for this transaction
        await transaction.execute(
            "INSERT INTO outbox (event, terminal, package, reply_to, correlation) VALUES (?, ?, ?, ?, ?)",
            (
                event.model_dump_json(),
                int(event.kind.terminal),
                str(package) if package else None,
                reply_to,
                correlation,
            ),
        )

    async def _answer_all(self, transaction: Transaction, package: uuid.UUID, result: Event) -> None:
        """Tell the result to everybody who asked for it under an id of their own, once."""
        rows = await transaction.rows(
            "UPDATE asker SET answered = 1 WHERE package = ? AND answered = 0"
            " RETURNING envelope, reply_to, correlation",
            (str(package),),
        )
        for text, reply_to, correlation in rows:
            answer = result.to(RequestEnvelope.model_validate_json(text), correlation)
            await self._to_outbox(transaction, package, answer, reply_to=reply_to or "", correlation=correlation)


async def _next_sequence(transaction: Transaction, package: uuid.UUID) -> int:
    row = await transaction.row(
        "UPDATE request SET sequence = sequence + 1 WHERE package = ? RETURNING sequence", (str(package),)
    )
    return int(row[0]) if row else 1


async def _addressed(
    transaction: Transaction, package: uuid.UUID | None, reply_to: str | None, correlation: str | None
) -> tuple[str | None, str | None]:
    """Where an event goes, and under which correlation: where nobody says, as its request does."""
    if package is None or reply_to is not None:
        return reply_to, correlation
    row = await transaction.row("SELECT reply_to, correlation FROM request WHERE package = ?", (str(package),))
    return (row[0], correlation or row[1]) if row else (None, correlation)


async def _set_state(
    transaction: Transaction, package: uuid.UUID, state: RequestState, event: Event, *, untold: bool = False
) -> None:
    stamp = now().isoformat()
    await transaction.execute("UPDATE request SET state = ? WHERE package = ?", (state, str(package)))
    if state is RequestState.RUNNING:
        await transaction.execute(
            "UPDATE request SET started_at = coalesce(started_at, ?) WHERE package = ?", (stamp, str(package))
        )
    if state.terminal:
        await transaction.execute(
            "UPDATE request SET finished_at = ?, result = ?, untold = ? WHERE package = ?",
            (stamp, event.model_dump_json(), int(untold), str(package)),
        )
        await _forget_tombstones(transaction, package)


async def _forget_tombstones(transaction: Transaction, package: uuid.UUID) -> None:
    """What was cancelled, or ended in another way, may be asked for again."""
    await transaction.execute(
        "DELETE FROM tombstone WHERE request IN (?, (SELECT request FROM request WHERE package = ?))",
        (str(package), str(package)),
    )
