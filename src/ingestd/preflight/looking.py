"""The look itself: what is asked for, then where it is, then what is in it; everything found is collected."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import structlog

from ingestd.admission import Need, need_of
from ingestd.bag import no_bag
from ingestd.errors import Code, DependencyError, IngestError, RequestError
from ingestd.job import Services
from ingestd.messages import PreservationRequest, ProcessingConfig
from ingestd.oais import TransferType, escape_name
from ingestd.planning import check_reingest, planned
from ingestd.preflight.metadata import READ as METADATA
from ingestd.preflight.metadata import check_metadata
from ingestd.preflight.report import Report
from ingestd.preflight.structure import READ as STRUCTURE
from ingestd.preflight.structure import check_bag, check_checksums, check_places, is_bag
from ingestd.preflight.transfer import OutOfTimeError, Transfer
from ingestd.preflight.types import READ as TYPES
from ingestd.preflight.types import check_type
from ingestd.premis import now, rfc3339
from ingestd.sources import Checked, Kind, Source, check, source_of
from ingestd.sources.copying import digest_of
from ingestd.sources.downloads import ask_head
from ingestd.sources.findings import compare
from ingestd.sources.listing import Reading, list_archive
from ingestd.sources.locations import is_object, is_remote
from ingestd.sources.names import open_plain
from ingestd.sources.overview import Bounds, Overview, ask_store, looked_into
from ingestd.together import Worker
from ingestd.workflow import Workflow

log = structlog.get_logger(__name__)

_READ = (*STRUCTURE, *METADATA, *TYPES)
"""Patterns of the names of files that are read."""
_LISTING = 0.8
"""How much of the time may go to listing an archive; the rest is for what was taken out of it."""
_ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".zip", ".tar", ".7z", ".rar")


class Preflight:
    """Looks at requests before anything is done for them. `services` and `workflow` are those in force for them."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        self._services = services
        self._settings = services.settings
        self._workflow = workflow

    async def look(self, request: PreservationRequest, *, trusted: bool) -> Report:
        """Look at a request and its source. Nothing that is wrong with either is raised: it is in the report."""
        report = Report(name=request.name or "")
        await self._ask(request, report, trusted=trusted)
        try:
            stored = await check_reingest(self._services, request, trusted=trusted)
            source = source_of(request.source, self._settings.credentials)
            report.checked = stored or await check(source, self._settings.sources, trusted=trusted)
        except IngestError as error:
            report.errors.append(error)
            return report
        report.name = report.name or name_of(report.checked)
        report.source_bytes = report.checked.size_bytes
        if request.type is TransferType.REINGEST:
            report.limits.append("whether the AIP is what it says is seen when it is taken up")
            return report
        try:
            if report.checked.kind is Kind.REMOTE:
                await self._look_far(source, report, trusted=trusted)
            else:
                await self._look_near(source, request, report)
        except IngestError as error:
            report.errors.append(error)
        return report

    async def must_pass(self, request: PreservationRequest, *, trusted: bool) -> Report:
        """Look, and raise everything that is wrong as one error; or what keeps archival storage from taking the AIP."""
        report = await self.look(request, trusted=trusted)
        log.info("preflight", files=report.files, size_bytes=report.size_bytes, limits=report.limits)
        if (error := report.error()) is not None:
            raise error
        if trusted:  # a service has tried all locations at its start
            locations = self._services.locations
            await locations.get(request.target.location or locations.default, trusted=trusted).check()
        return report

    async def need(
        self,
        folder: Path,
        request: PreservationRequest,
        processing: ProcessingConfig,
        report: Report | None,
        *,
        trusted: bool,
    ) -> Need:
        """What the package may need on the working disk. It is reckoned once, and kept in its working folder."""
        kept = folder / "need.json"
        known = await asyncio.to_thread(_known, kept) if report is None else None
        if known is not None:
            return known
        report = report or await self.look(request, trusted=trusted)
        need = need_of(
            self._settings.admission,
            files=report.files,
            size_bytes=report.size_bytes,
            source_bytes=report.source_bytes,
            remote=report.checked is not None and report.checked.kind is Kind.REMOTE,
            options=processing.as_options(),
            steps={link.execute for link in self._workflow.links.values()},
        )
        await asyncio.to_thread(kept.write_text, json.dumps(asdict(need)))
        return need

    async def _ask(self, request: PreservationRequest, report: Report, *, trusted: bool) -> None:
        """What is asked for: options, rules, target, expiry."""
        locations = self._services.locations
        try:
            processing = ProcessingConfig.resolve(self._settings.processing, request.processing)
            await planned(self._services, request, processing)
        except IngestError as error:
            report.errors.append(error)
        try:
            locations.get(request.target.location or locations.default, trusted=trusted)
        except IngestError as error:
            report.errors.append(error)
        if request.expires_at is not None and request.expires_at < now():
            expired = f"it expired at {rfc3339(request.expires_at)}"
            report.errors.append(RequestError(expired, code=Code.REQUEST_EXPIRED))

    # --- far ---------------------------------------------------------------------------------------------------------

    async def _look_far(self, source: Source, report: Report, *, trusted: bool) -> None:
        sources, limits = self._settings.sources, self._settings.preflight
        report.limits.append("what is in a remote source is seen when it is fetched")
        try:
            if is_remote(source.location):
                head = await ask_head(source.location, settings=sources, trusted=trusted, seconds=limits.max_seconds)
                report.source_bytes = head.size_bytes if head else None
                if head is None:
                    report.limits.append("the server did not say what there is at the URL")
            elif is_object(source.location):
                bounds = Bounds(entries=limits.max_entries, until=time.monotonic() + limits.max_seconds)
                found = await ask_store(source.location, source.credentials, sources, bounds=bounds, trusted=trusted)
                _count(report, found)
        except (DependencyError, IngestError) as error:
            if error.code is not Code.SOURCE_DOWNLOAD_INTERRUPTED and not isinstance(error, DependencyError):
                raise
            report.limits.append(f"the source did not answer: {error.detail}")

    # --- near --------------------------------------------------------------------------------------------------------

    async def _look_near(self, source: Source, request: PreservationRequest, report: Report) -> None:
        checked, limits = report.checked, self._settings.preflight
        assert checked is not None  # noqa: S101  the caller has it
        worker = Worker()
        await worker.run(partial(self._compare, source, checked, report, worker))
        bounds = Bounds(entries=limits.max_entries, until=time.monotonic() + limits.max_seconds)
        look = self._look_into_archive if checked.kind is Kind.ARCHIVE else self._look_into
        try:
            await look(checked, request, report, bounds, worker)
        except OSError as error:
            report.limits.append(f"the source could not be looked at: {error.strerror or error}")

    async def _look_into(
        self, checked: Checked, request: PreservationRequest, report: Report, bounds: Bounds, worker: Worker
    ) -> None:
        def into() -> None:
            with looked_into(checked, self._settings.sources, bounds=bounds, breathe=worker.breathe) as overview:
                self._inside(overview, request, report, bounds.until, worker)

        await worker.run(into)

    async def _look_into_archive(
        self, checked: Checked, request: PreservationRequest, report: Report, bounds: Bounds, worker: Worker
    ) -> None:
        """List the archive in most of the time, and read what was taken out of it in the rest."""
        limits = self._settings.preflight
        until = bounds.until - (1 - _LISTING) * limits.max_seconds
        reading = Reading(wanted=_READ, file_bytes=limits.max_metadata_bytes)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ingestd-look-"))
        try:
            overview = await list_archive(
                checked,
                folder,
                self._settings.unpack,
                self._services.pool,
                bounds=replace(bounds, until=until),
                reading=reading,
            )
            if overview is None:
                report.limits.append("what this archive holds is seen when it is unpacked")
            else:
                await worker.run(partial(self._inside, overview, request, report, bounds.until, worker))
                if overview.said:  # what was seen is not what there will be
                    report.files = report.size_bytes = None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _compare(self, source: Source, checked: Checked, report: Report, worker: Worker) -> None:
        """Hold a file that is small enough against its checksum."""
        if source.checksum is None or checked.path is None:
            return
        most = self._settings.preflight.max_checksum_bytes
        if (checked.size_bytes or 0) > most:
            report.limits.append(f"the checksum of more than {most} bytes is compared when the source is received")
            return
        descriptor = open_plain(str(checked.path), os.O_RDONLY)
        try:
            found = digest_of(descriptor, source.checksum.algorithm, name=checked.name, breathe=worker.breathe)
        finally:
            os.close(descriptor)
        try:
            compare(source.checksum, found)
        except IngestError as error:
            report.errors.append(error)

    def _inside(
        self, overview: Overview, request: PreservationRequest, report: Report, until: float, worker: Worker
    ) -> None:
        """Check what is in a source; blocks."""
        _count(report, overview)

        def watch() -> None:
            worker.breathe()
            if time.monotonic() > until:
                raise OutOfTimeError

        transfer = Transfer(
            overview=overview,
            bag=False,
            system_names=self._settings.removable_files,
            mail=request.type is TransferType.MAILDIR,
            most_bytes=self._settings.preflight.max_metadata_bytes,
            most_digested_bytes=self._settings.preflight.max_checksum_bytes,
            watch=watch,
            errors=report.errors,
            limits=report.limits,
        )
        try:
            self._check(transfer, request, report)
        except OutOfTimeError:
            report.limits.append("not all of it was looked at in time (preflight.max_seconds)")
        if transfer.undigested:
            report.limits.append("not every file was held against its checksum: that is done when it is received")

    def _check(self, transfer: Transfer, request: PreservationRequest, report: Report) -> None:
        fatal = _fatal(self._workflow)
        if request.type is not TransferType.STANDARD and "verify_bag" in fatal:
            transfer.bag = is_bag(transfer)
            if request.type is TransferType.BAG and not transfer.bag and not transfer.overview.said:
                report.errors.append(no_bag())
                return
        if transfer.bag:
            check_bag(transfer, fetching=self._settings.sources.fetch_txt)
        if "restructure_for_compliance" in fatal:
            check_places(transfer)
        if "verify_checksum_manifests" in fatal:
            check_checksums(transfer)
        check_type(transfer, request.type, fatal=fatal)
        stated = [one.claim() for one in request.metadata.rights]
        report.warnings += check_metadata(transfer, self._settings, stated, fatal=fatal)


def _known(kept: Path) -> Need | None:
    """What was reckoned before; None where nothing was, or a crash or a full disk cut it short."""
    try:
        return Need(**json.loads(kept.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _count(report: Report, overview: Overview) -> None:
    if overview.error is not None:
        report.errors.append(overview.error)
    if overview.said:
        report.limits.append(overview.said)
    report.files, report.size_bytes = overview.files, overview.size_bytes


def _fatal(workflow: Workflow) -> Mapping[str, bool]:
    """By step that the workflow has, whether its failure fails the package."""
    found: dict[str, bool] = {}
    for link in workflow.links.values():
        after = workflow.links.get(link.fallback_link_id or "")
        found[link.execute] = found.get(link.execute, False) or after is None or after.fails
    return found


def name_of(checked: Checked) -> str:
    """A package's name from its source: without an archive's suffix, and as the contract wants names."""
    name = escape_name(checked.name)
    for suffix in _ARCHIVE_SUFFIXES:
        if checked.kind != "folder" and name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return name.strip()[:200] or "transfer"
