"""What is proved of a request before any work is done: the registry in force, the AIP that it reingests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ingestd.config import Settings
from ingestd.errors import Code, RequestError, Violation
from ingestd.fpr.identified import check_installed, command_of
from ingestd.fpr.layers import request_layer
from ingestd.fpr.registry import Registry
from ingestd.job import Services
from ingestd.journal import RequestRecord
from ingestd.messages import (
    LEFT_OUT,
    REINGEST,
    CompressionAlgorithm,
    OwnPolicy,
    PreservationRequest,
    ProcessingConfig,
)
from ingestd.oais import Package
from ingestd.sources import Checked, Kind, check, source_of
from ingestd.storage import find_stored
from ingestd.tools.gpg import prove_keys
from ingestd.tools.packing import ENCRYPTED


async def planned(services: Services, request: PreservationRequest, processing: ProcessingConfig) -> Services:
    """Give services with the registry that is in force for a request: the site's, with the request's own rules over it.

    Raises `RequestError` where the site allows no own rules (`request.policy_refused`), for everything that is wrong
    with them (`request.schema_invalid`), and for an identification command that the registry does not have; `ToolError`
    where the program that should identify formats is not installed; for an AIP that is to be encrypted, `SystemFault`
    (`system.configuration`) unless the settings have keys for it.
    """
    if request.fpr != OwnPolicy():
        registry = await _overridden(services, request)
        services = replace(services, registry=registry, commands=services.commands.over(registry))
    command = command_of(processing.as_options(), services.registry)
    await asyncio.to_thread(check_installed, command, services.commands)
    if processing.encrypt_aip:
        await _encryption(services, processing)
    return services


async def _encryption(services: Services, processing: ProcessingConfig) -> None:
    if processing.aip_compression_algorithm is CompressionAlgorithm.UNCOMPRESSED:
        raise RequestError(
            "an AIP that is left a folder cannot be encrypted",
            code=Code.REQUEST_SCHEMA_INVALID,
            violations=(Violation(path="processing.encrypt_aip", rule="unpacked", expected="an AIP that is packed"),),
        )
    await prove_keys(services.pool, services.settings.encryption)


async def _overridden(services: Services, request: PreservationRequest) -> Registry:
    if not services.settings.fpr_overrides:
        raise RequestError(
            "rules of a request's own are not allowed here",
            code=Code.REQUEST_POLICY_REFUSED,
            violations=(Violation(path="fpr", rule="not-allowed", expected="no rules, or the setting fpr_overrides"),),
        )
    layer = request_layer(request.fpr.model_dump(exclude_defaults=True))
    return await asyncio.to_thread(services.registry.over, layer)


def processing_of(settings: Settings, request: PreservationRequest) -> ProcessingConfig:
    """The processing options of a request; what its kind of reingest leaves out is off. Raises `RequestError`."""
    processing = ProcessingConfig.resolve(settings.processing, request.processing)
    off = LEFT_OUT[request.reingests] if request.reingests else ()
    return processing.model_copy(update=dict.fromkeys(off, False))


async def check_source(services: Services, request: PreservationRequest, *, trusted: bool) -> Checked:
    """See what a source is and that it may be read. Raises what `sources.check` and `check_reingest` raise."""
    stored = await check_reingest(services, request, trusted=trusted)
    source = source_of(request.source, services.settings.credentials)
    return stored or await check(source, services.settings.sources, trusted=trusted)


async def check_reingest(services: Services, request: PreservationRequest, *, trusted: bool) -> Checked | None:
    """See that what a reingest adds may be read, and that the AIP is held where it is named by its UUID; give it then.

    Raises what `sources.check` raises, `SourceError` where nobody holds it, `RequestError` where it is encrypted.
    """
    settings = services.settings
    if request.reingest and request.reingest.metadata:
        await check(source_of(request.reingest.metadata, settings.credentials), settings.sources, trusted=trusted)
    if request.stored_aip is None:
        return None
    place = services.locations.get(request.target.location or services.locations.default, trusted=trusted)
    _, held = await find_stored(services.locations, request.stored_aip, place)
    if held.name.endswith(ENCRYPTED):
        raise RequestError(
            f"{held.name} is encrypted: it is not reingested",
            code=Code.REQUEST_UNSUPPORTED_SOURCE,
            remediation="Decrypt it, and reingest what comes of it into another location.",
        )
    return Checked(kind=Kind.ARCHIVE, name=held.name)


def package_of(record: RequestRecord, name: str, processing: ProcessingConfig, workflow_digest: str) -> Package:
    """Give the package that a request will be."""
    request = record.envelope.data
    return Package(
        id=record.package,
        name=name,
        created_at=record.created_at,
        processing=processing.as_options() | {REINGEST: request.reingests is not None},
        asked=frozenset(request.processing),
        source=request.source.location,
        requester=record.envelope.source,
        tenant=request.tenant,
        collection=request.collection,
        accession=request.accession or "",
        external_identifier=request.external_identifier or "",
        workflow_digest=workflow_digest,
        type=request.type,
        reingest=request.reingests,
        request_id=record.package,
        **request.metadata.as_records(),
    )
