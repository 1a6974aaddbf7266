"""Cancelling and retrying requests."""

from __future__ import annotations

import asyncio
import difflib
import shutil
from datetime import timedelta
from pathlib import Path

import structlog

from ingestd.attempt import FolderBusy, hold_folder
from ingestd.config import Settings
from ingestd.errors import Code, RequestError
from ingestd.ingest.answers import Answers
from ingestd.ingest.running import Running
from ingestd.journal import PackageJournal, RequestRecord, ServiceJournal, Tombstone
from ingestd.messages import FROM_FAILED, FROM_START, CancelData, RequestState, RetryData
from ingestd.oais import Facts
from ingestd.premis import now
from ingestd.workflow import Workflow

log = structlog.get_logger(__name__)
_AGAIN = {RequestState.FAILED, RequestState.CANCELLED}


class Commands:
    """Does what commands say, as far as it concerns requests that are known here."""

    def __init__(
        self, workflow: Workflow, settings: Settings, journal: ServiceJournal, running: Running, answers: Answers
    ) -> None:
        self._workflow = workflow
        self._settings = settings
        self._journal = journal
        self._running = running
        self._answers = answers

    async def cancel(self, command: CancelData) -> bool:
        """Cancel a request in hand, and whatever of that name comes while the cancellation is kept.

        A request that has its result is left alone. What another process of this data folder is at work on is told by
        the journal; so is a service that dies before it is done with this.
        """
        found = await self._known(command.request, command.tenant)
        if found is not None and found.result is not None:
            log.info("cancellation_too_late", request=found.request, state=found.state.value)
            return False
        tombstone = Tombstone(request=command.request, tenant=command.tenant, reason=command.reason)
        await self._journal.bury(tombstone, now() + timedelta(seconds=self._settings.keep_cancellations_seconds))
        return self._running.stop(tombstone)

    async def retry(self, command: RetryData) -> RequestRecord | None:
        """Make a request ready for its next attempt, if it is known here; else it is another worker's to do."""
        found = await self._known(command.request, command.tenant)
        if found is None:
            return None
        try:
            return await self.reopen(command)
        except RequestError as error:
            log.warning("retry_refused", request=found.request, reason=error.detail)
            await self._answers.refuse_command(found, error)
            return None

    async def reopen(self, command: RetryData) -> RequestRecord:
        """Make a request ready for its next attempt. Raises `RequestError`."""
        record = await self._known(command.request, command.tenant)
        if record is None:
            raise unknown(command.request, self._settings)
        if record.state in _AGAIN:
            await self._running.settled(record.package)
        if record.package in self._running or (record.finished_at is not None and record.state not in _AGAIN):
            state = "at work" if record.package in self._running else record.state.value
            raise RequestError(
                f"request {record.request} (package {record.package}) is {state}: there is nothing to attempt again",
                code=Code.REQUEST_IDENTIFIER_INVALID,
                remediation="Only what failed, was cancelled or was interrupted can be retried.",
            )
        try:
            await self._go_back(self._settings.work_dir / str(record.package), command.start)
        except FolderBusy:
            raise RequestError(
                f"package {record.package} is at work in another process", code=Code.REQUEST_IDENTIFIER_INVALID
            ) from None
        return await self._journal.reopen(record.package, record.attempt + 1)

    async def _known(self, name: str, tenant: str | None) -> RequestRecord | None:
        found = await self._journal.find(name)
        return next((record for record in found if tenant in {None, record.envelope.data.tenant}), None)

    async def _go_back(self, folder: Path, start: str) -> None:
        """Set a package's journal to where its next attempt is to begin."""
        if start == FROM_START:
            with hold_folder(folder):
                await asyncio.to_thread(_empty, folder)
        elif start != FROM_FAILED:
            link = self._link(start)
            with hold_folder(folder):
                await self._go_back_to(folder / "journal.db", link)

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

    async def _go_back_to(self, path: Path, link: str) -> None:
        there = await asyncio.to_thread(path.exists)
        journal = await PackageJournal.open(path) if there else None
        try:
            reached = {job.link for job in await journal.jobs()} if journal else set()
            if journal is None or link not in reached:
                raise RequestError(
                    f"the package never came to {self._workflow.links[link].name!r}",
                    code=Code.REQUEST_IDENTIFIER_INVALID,
                    remediation="Retry from the link that failed, from one before it, or from the start.",
                )
            await journal.record(Facts(package={"next_link": link, "failed_link": "", "failure": ""}))
        finally:
            if journal is not None:
                await journal.close()


def unknown(name: str, settings: Settings) -> RequestError:
    return RequestError(
        f"there is no request or package {name} here",
        code=Code.REQUEST_IDENTIFIER_INVALID,
        remediation=f"The working folders of this service are below {settings.work_dir}.",
    )


def _empty(folder: Path) -> None:
    """Remove what an attempt left; the lock is kept, since it is held."""
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
