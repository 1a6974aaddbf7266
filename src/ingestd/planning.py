"""Preservation planning of one request: which registry is in force for it, proved before any work is done."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ingestd.errors import Code, RequestError, Violation
from ingestd.fpr.identified import check_installed, command_of
from ingestd.fpr.layers import request_layer
from ingestd.fpr.registry import Registry
from ingestd.job import Services
from ingestd.messages import CompressionAlgorithm, OwnPolicy, PreservationRequest, ProcessingConfig
from ingestd.tools.gpg import prove_keys


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
