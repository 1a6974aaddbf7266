"""The registry that is in force for one request, and what refuses a request before any work is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ingestd.config import Settings
from ingestd.errors import Code, IngestError, RequestError, ToolError
from ingestd.fpr.records import Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.messages import PreservationRequest, ProcessingConfig
from ingestd.planning import planned
from tests.bench import Bench, open_bench

JPEG = "fmt/43"
OWN = {"rule": [{"purpose": "preservation", "format": JPEG, "command": "imagemagick-tiff"}]}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest_asyncio.fixture
async def bench(registry: Registry, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, registry, Settings(data_dir=tmp_path / "data", fpr_overrides=True)) as bench:
        yield bench


def request(**more: Any) -> PreservationRequest:
    return PreservationRequest.model_validate({"source": {"location": "/x"}, **more})


async def test_a_request_without_rules_of_its_own_has_the_registry_of_the_site(bench: Bench) -> None:
    assert await planned(bench.services, request(fpr={}), ProcessingConfig()) is bench.services


async def test_a_rule_of_a_request_takes_the_place_of_the_sites_for_that_request_alone(bench: Bench) -> None:
    services = await planned(bench.services, request(fpr=OWN), ProcessingConfig())

    jpeg = services.registry.format_version(JPEG)
    (rule,) = services.registry.choose(Purpose.PRESERVATION, jpeg)
    assert "imagemagick-tiff" == rule.command
    assert services.commands.registry is services.registry
    assert () == bench.services.registry.choose(Purpose.PRESERVATION, jpeg)


async def test_a_request_can_do_without_a_rule(bench: Bench) -> None:
    off = {"disable": [{"id": "preservation:x-fmt/111", "reason": "they are logs"}]}

    services = await planned(bench.services, request(fpr=off), ProcessingConfig())

    rule = services.registry.find(Rule, "preservation:x-fmt/111")
    assert rule is not None
    assert not services.registry.is_active(rule)


async def test_what_is_wrong_with_the_rules_of_a_request_is_told_record_by_record(bench: Bench) -> None:
    wrong = {
        "rule": [
            {"purpose": "preservation", "format": JPEG, "command": "magic"},
            {"purpose": "preserve", "format": JPEG, "command": "imagemagick-tiff"},
            {"purpose": "access", "format": "fmt/nothing", "command": "imagemagick-jpeg"},
        ],
        "disable": [{"id": "no such rule"}],
    }

    with pytest.raises(RequestError) as caught:
        await planned(bench.services, request(fpr=wrong), ProcessingConfig())

    rules = {violation.rule for violation in caught.value.violations}
    assert {"command-unknown", "enum", "format-unknown", "disables-nothing"} <= rules
    assert all("request/" in violation.path for violation in caught.value.violations)


async def test_rules_of_a_request_are_refused_where_the_site_does_not_allow_them(
    registry: Registry, tmp_path: Path
) -> None:
    async with open_bench(tmp_path, registry) as bench:
        with pytest.raises(RequestError) as caught:
            await planned(bench.services, request(fpr=OWN), ProcessingConfig())

    assert caught.value.code is Code.REQUEST_POLICY_REFUSED
    assert ["fpr"] == [violation.path for violation in caught.value.violations]


async def test_an_identification_command_that_does_not_exist_is_refused_with_those_that_do(bench: Bench) -> None:
    with pytest.raises(RequestError) as caught:
        await planned(bench.services, request(), ProcessingConfig(identification_command="droid"))

    assert caught.value.code is Code.REQUEST_UNKNOWN_OPTION
    assert "siegfried, fido, extension" == caught.value.violations[0].expected


async def test_an_identification_command_whose_program_is_missing_is_refused(bench: Bench) -> None:
    bench.pool.missing = frozenset({"fido"})

    with pytest.raises(ToolError, match="Fido") as caught:
        await planned(bench.services, request(), ProcessingConfig(identification_command="fido"))

    assert "opf-fido" in caught.value.remediation


def test_rules_of_a_request_are_part_of_what_it_asks_for() -> None:
    assert request().content_digest() == request(fpr={}).content_digest()
    assert request().content_digest() != request(fpr=OWN).content_digest()


def test_a_misspelt_word_in_the_rules_of_a_request_is_not_lost() -> None:
    with pytest.raises(ValueError, match="rules"):
        request(fpr={"rules": []})


@pytest.mark.parametrize(
    ("packed", "code"),
    [("s7_copy", Code.SYSTEM_CONFIGURATION), ("uncompressed", Code.REQUEST_SCHEMA_INVALID)],
)
async def test_encryption_without_a_key_or_of_a_folder_is_refused_before_any_work(
    bench: Bench, packed: str, code: Code
) -> None:
    processing = ProcessingConfig.resolve({"encrypt_aip": True, "aip_compression_algorithm": packed})

    with pytest.raises(IngestError) as caught:
        await planned(bench.services, request(), processing)

    assert caught.value.code is code
