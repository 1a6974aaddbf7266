"""Cancelling and retrying requests."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from ingestd.config import Settings
from ingestd.errors import Code, IngestError, RequestError
from ingestd.ingest.answers import Answers
from ingestd.ingest.claims import Claims
from ingestd.ingest.running import Running
from ingestd.journal import JobRecord, PackageJournal, RequestRecord, ServiceJournal, Tombstone
from ingestd.leases import HeldError, Lease
from ingestd.messages import FROM_FAILED, FROM_START, CancelData, RequestState, RetryData
from ingestd.oais import Facts
from ingestd.premis import now
from ingestd.workflow import Workflow
from ingestd.workfolder import FolderBusy, empty, hold_folder

log = structlog.get_logger(__name__)
RETRIED = {RequestState.FAILED, RequestState.CANCELLED, RequestState.OUTCOME_UNKNOWN}
"""States from which a request can be retried."""

_BEGUN_ANEW: Mapping[str, str] = {
    "take_aip_apart": "take_aip_apart",
    "restructure_for_compliance": "restructure_for_compliance",
    "move_submission_documentation": "change_object_names",
    "prepare_aip": "prepare_aip",
}
"""Steps that lay the files out in another way. Once one has begun, what was reached before the first run of the step
beside it does not find them where it looks for them.
"""


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that is ready to be launched."""

    record: RequestRecord
    lease: Lease | None


class Commands:
    """Does what commands say, as far as it concerns requests that are known here."""

    def __init__(
        self,
        workflow: Workflow,
        settings: Settings,
        journal: ServiceJournal,
        running: Running,
        answers: Answers,
        claims: Claims,
    ) -> None:
        self._workflow = workflow
        self._settings = settings
        self._journal = journal
        self._running = running
        self._answers = answers
        self._claims = claims

    async def cancel(self, command: CancelData) -> bool:
        """Cancel a request in hand, and whatever of that name comes while the cancellation is kept.

        A request that has its result is left alone. What another process of this data folder is at work on is told by
        the journal; so is a service that dies before it is done with this.
        """
        found = await self._known(command.request, command.tenant)
        if found is not None and found.result is not None:
            log.info("cancellation_too_late", request=found.request, state=found.state.value)
            return False
        at = now()
        until = at + timedelta(seconds=self._settings.keep_cancellations_seconds)
        tombstone = Tombstone(request=command.request, tenant=command.tenant, reason=command.reason, at=at)
        await self._journal.bury(tombstone, until)
        stopped = self._running.stop(tombstone)
        if found is None:
            await self._claims.cancel(tombstone, until)
        return stopped

    async def retry(self, command: RetryData) -> Ready | None:
        """Make a request ready for its next attempt, if it is known here; else it is another worker's to do."""
        found = await self._known(command.request, command.tenant)
        if found is None:
            return None
        try:
            return await self.reopen(command)
        except HeldError:
            return None
        except IngestError as error:
            log.warning("retry_refused", request=found.request, reason=error.detail)
            await self._answers.refuse_command(found, error)
            return None

    async def reopen(self, command: RetryData) -> Ready:
        """Make a request ready for its next attempt. Raises `RequestError`, and `HeldError` if another worker did."""
        record = await self._known(command.request, command.tenant)
        if record is None:
            raise unknown(command.request, self._settings)
        if record.state in RETRIED:
            await self._running.settled(record.package)
        if record.package in self._running or (record.finished_at is not None and record.state not in RETRIED):
            state = record.state.value if record.finished_at else "at work"
            raise RequestError(
                f"request {record.request} (package {record.package}) is {state}: there is nothing to attempt again",
                code=Code.REQUEST_IDENTIFIER_INVALID,
                remediation="Only what failed, was cancelled or was interrupted can be retried.",
            )
        folder = self._settings.work_dir / str(record.package)
        if command.start not in {FROM_START, FROM_FAILED}:
            await self._must_be_reached(folder, self._link(command.start))
        lease = await self._claims.take(record, attempt=record.attempt + 1)
        await self._go_back(folder, command.start)
        return Ready(await self._journal.reopen(record.package, record.attempt + 1), lease)

    async def _known(self, name: str, tenant: str | None) -> RequestRecord | None:
        found = await self._journal.find(name)
        return next((record for record in found if tenant in {None, record.envelope.data.tenant}), None)

    async def _go_back(self, folder: Path, start: str) -> None:
        """Set a package's journal to where its next attempt is to begin, or empty its folder: it begins anew."""
        try:
            with hold_folder(folder):
                if start == FROM_START:
                    await asyncio.to_thread(empty, folder)
                elif start != FROM_FAILED:
                    facts = {"next_link": self._link(start), "failed_link": "", "failure": ""}
                    async with _opened(folder / "journal.db") as journal:
                        if anew := _begins_anew(await journal.jobs(), self._link(start)):
                            log.info("begun_anew", package=folder.name, link=start)
                        else:
                            await journal.record(Facts(package=facts))
                    if anew:
                        await asyncio.to_thread(empty, folder)
        except FolderBusy:
            raise RequestError(
                f"package {folder.name} is at work in another process", code=Code.REQUEST_IDENTIFIER_INVALID
            ) from None

    async def _must_be_reached(self, folder: Path, link: str) -> None:
        reached: set[str] = set()
        if await asyncio.to_thread((folder / "journal.db").exists):
            async with _opened(folder / "journal.db") as journal:
                reached = {job.link for job in await journal.jobs()}
        if link not in reached:
            raise RequestError(
                f"the package never came to {self._workflow.links[link].name!r}, or it was worked on elsewhere",
                code=Code.REQUEST_IDENTIFIER_INVALID,
                remediation="Retry from the link that failed, from one before it, or from the start.",
            )

    def _link(self, name: str) -> str:
        links = self._workflow.links
        if name in links:
            return name
        named = [link_id for link_id, link in links.items() if name in {link.execute, link.name}]
        if len(named) == 1:
            return named[0]
        if named:
            raise RequestError(
                f"there are {len(named)} links {name!r}; name one by its id: {', '.join(named)}",
                code=Code.REQUEST_IDENTIFIER_INVALID,
            )
        near = difflib.get_close_matches(name, sorted({link.execute for link in links.values()}), n=1)
        raise RequestError(
            f"the workflow has no link {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
            code=Code.REQUEST_IDENTIFIER_INVALID,
            remediation="Name a link by its id or its `execute` (`ingestd workflow graph` shows them), or `start`.",
        )


def _begins_anew(jobs: Sequence[JobRecord], link: str) -> bool:
    """Whether a package can come to a link again only from the start."""
    first: dict[str, int] = {}
    for job in jobs:
        first.setdefault(job.execute, job.row)
    row = min(job.row for job in jobs if job.link == link)
    return any(after in first and row < first.get(until, 0) for after, until in _BEGUN_ANEW.items())


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[PackageJournal]:
    journal = await PackageJournal.open(path)
    try:
        yield journal
    finally:
        await journal.close()


def unknown(name: str, settings: Settings) -> RequestError:
    return RequestError(
        f"there is no request or package {name} here",
        code=Code.REQUEST_IDENTIFIER_INVALID,
        remediation=f"The working folders of this service are below {settings.work_dir}.",
    )
