"""Policy checks with the real MediaConch on real sound and film."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.config import Settings
from ingestd.errors import SystemFault
from ingestd.fpr.commands import Commands
from ingestd.fpr.layers import shipped_layer, site_layer
from ingestd.fpr.registry import Registry
from ingestd.handlers.policies import policy_check
from ingestd.job import Outcome
from ingestd.oais import Facts, File, FileUse, Reingest
from ingestd.premis import EventOutcome, EventType
from tests import fpr_samples as samples
from tests.bench import Bench, need, open_bench

pytestmark = pytest.mark.tool

MKV, WAVE, PDF = "fmt/569", "fmt/141", "fmt/17"
POLICY = (
    '<?xml version="1.0"?>\n<policy type="and" name="{name}"><rule name="Is {value}?" value="Format"'
    ' tracktype="General" occurrence="*" operator="=">{value}</rule></policy>\n'
)
OWN_COMMAND = """
[[command]]
id = "own"
tool = "xmllint"
usage = "validation"
description = "A site's own check"
script_type = "bashScript"
script = '''
echo '{"eventOutcomeInformation": "fail", "eventOutcomeDetailNote": "of '"$1"'", "policyFileName": "own.sch"}'
'''

[[rule]]
purpose = "policy_check"
format = "fmt/17"
command = "own"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest_asyncio.fixture
async def bench(registry: Registry, tmp_path: Path) -> AsyncIterator[Bench]:
    need("mediaconch", "ffmpeg")
    (tmp_path / "policies").mkdir()
    settings = Settings(data_dir=tmp_path / "data", policies=tmp_path / "policies")
    async with open_bench(tmp_path, registry, settings) as bench:
        yield bench


def add_policy(bench: Bench, name: str, value: str) -> str:
    content = POLICY.format(name=name.rpartition("/")[2], value=value)
    path = bench.folder / "policies" / f"{name}.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return content


async def checked(bench: Bench, **options: str) -> Outcome:
    outcome = await policy_check(bench.task(**options), bench.services)
    bench.record(outcome)
    return outcome


async def recorded(bench: Bench) -> Sequence[File]:
    return [file async for files in bench.history.files() for file in files]


async def test_each_policy_has_its_event_its_report_and_a_warning_where_it_is_broken(bench: Bench) -> None:
    add_policy(bench, "matroska", "Matroska")
    add_policy(bench, "wave", "Wave")
    film = bench.put("a & b.mkv", MKV, make=samples.film)

    outcome = await checked(bench)

    first, second = outcome.facts.events
    assert (first.object, first.type, first.outcome) == (film.id, EventType.VALIDATION, EventOutcome.PASS)
    assert first.detail.startswith('program="MediaConch"; version="')
    assert first.detail.endswith('; policy="matroska.xml"')
    assert (second.outcome, second.note) == (EventOutcome.FAIL, "does not keep wave.xml (Is Wave?)")
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("policy_check.failed", "objects/a & b.mkv")]
    assert outcome.exit_code == 0
    report = bench.root / "logs/policyChecks/wave" / f"a___b.mkv-{film.id}.xml"
    assert 'outcome="fail"' in report.read_text()
    assert '<media ref="objects/a &amp; b.mkv">' in report.read_text()
    assert str(bench.folder) not in report.read_text()


async def test_the_policies_that_were_used_become_files_of_the_package(bench: Bench) -> None:
    content = add_policy(bench, "wave", "Wave")
    bench.put("a.wav", WAVE, make=samples.sound)

    await checked(bench)
    await checked(bench, use="preservation")

    path = "metadata/submissionDocumentation/policies/wave.xml"
    assert (bench.root / path).read_text() == content
    files = await recorded(bench)
    assert [(f.path, f.original, f.use, f.size_bytes) for f in files] == [
        (path, path, FileUse.SUBMISSION_DOCUMENTATION, len(content))
    ]
    assert files[0].digest is not None
    assert await bench.history.taken(["metadata", "metadata/submissionDocumentation"])
    assert sorted(p.name for p in bench.folder.iterdir() if p.is_file()) == []


async def test_a_policy_that_an_earlier_version_was_held_against_is_another_file(bench: Bench) -> None:
    add_policy(bench, "wave", "Wave")
    bench.put("a.wav", WAVE, make=samples.sound)
    await checked(bench)
    (before,) = await recorded(bench)
    (bench.root / before.path).unlink()
    task = bench.task()
    again = replace(task.package, reingest=Reingest.FULL, request_id=uuid.UUID(int=7))
    bench.history.record(Facts(files=[replace(before, path="objects/submissionDocumentation/transfer-1/wave.xml")]))

    outcome = await policy_check(replace(task, package=again), bench.services)

    (after,) = outcome.facts.files
    assert before.path == after.path
    assert before.id != after.id


async def test_the_submitters_own_file_of_a_policys_name_is_left_alone(bench: Bench) -> None:
    content = add_policy(bench, "wave", "Wave")
    place = bench.root / "metadata/submissionDocumentation/policies"
    place.mkdir(parents=True)
    (place / "wave.xml").write_text("mine")
    bench.put("a.wav", WAVE, make=samples.sound)

    await checked(bench)

    assert (place / "wave.xml").read_text() == "mine"
    (kept,) = await recorded(bench)
    assert kept.path != "metadata/submissionDocumentation/policies/wave.xml"
    assert (bench.root / kept.path).read_text() == content


async def test_what_is_neither_sound_nor_film_is_held_against_no_policy(bench: Bench) -> None:
    add_policy(bench, "wave", "Wave")
    bench.put("a.pdf", PDF)
    bench.files.append(replace(bench.put("b", ""), format=None))

    outcome = await checked(bench)

    assert (list(outcome.facts.events), list(outcome.facts.files), list(outcome.facts.warnings)) == ([], [], [])
    assert not (bench.root / "metadata").exists()


async def test_without_policies_nothing_is_done_and_nothing_warned(bench: Bench) -> None:
    bench.put("a.wav", WAVE, make=samples.sound)

    empty = await checked(bench)
    unset = replace(bench.services, settings=bench.services.settings.model_copy(update={"policies": None}))
    without = await policy_check(bench.task(), unset)

    assert [(list(o.facts.events), list(o.facts.warnings)) for o in (empty, without)] == [([], []), ([], [])]


async def test_a_missing_mediaconch_is_one_warning(bench: Bench) -> None:
    add_policy(bench, "wave", "Wave")
    add_policy(bench, "matroska", "Matroska")
    bench.put("a.wav", WAVE, make=samples.sound)
    bench.put("b.wav", WAVE, make=samples.sound)
    bench.pool.missing = frozenset({"mediaconch"})

    outcome = await checked(bench)

    assert list(outcome.facts.events) == []
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("tool.not_installed", "")]


async def test_a_policy_that_mediaconch_does_not_understand_is_a_warning_on_the_file(bench: Bench) -> None:
    (bench.folder / "policies" / "odd.xml").write_text("<recipe/>")
    bench.put("a.wav", WAVE, make=samples.sound)

    outcome = await checked(bench)

    assert list(outcome.facts.events) == []
    (warning,) = outcome.facts.warnings
    assert (warning.code, warning.path) == ("tool.crashed", "objects/a.wav")
    assert "odd.xml" in warning.detail


@pytest.mark.parametrize("content", ["<policy", '<!DOCTYPE p [<!ENTITY e "x">]><policy name="&e;"/>'])
async def test_a_policy_that_is_no_sound_xml_is_an_error_that_names_it(bench: Bench, content: str) -> None:
    (bench.folder / "policies" / "bad.xml").write_text(content)
    bench.put("a.wav", WAVE, make=samples.sound)

    with pytest.raises(SystemFault, match=r"bad\.xml"):
        await checked(bench)


async def test_originals_and_copies_may_have_policies_of_their_own(bench: Bench) -> None:
    add_policy(bench, "sound", "Wave")
    add_policy(bench, "access/sound", "MPEG Audio")
    add_policy(bench, "access/film", "MPEG-4")
    bench.put("a.wav", WAVE, make=samples.sound)

    originals = await checked(bench, use="original")
    copies = await checked(bench, use="access")

    def told(outcome: Outcome) -> list[tuple[str, str]]:
        return [(event.detail.rpartition("policy=")[2], str(event.outcome)) for event in outcome.facts.events]

    assert [('"sound.xml"', "pass")] == told(originals)
    assert [('"film.xml"', "fail"), ('"sound.xml"', "fail")] == told(copies)


async def test_a_folder_of_policies_that_is_not_there_is_an_error(bench: Bench) -> None:
    (bench.folder / "policies").rmdir()

    with pytest.raises(SystemFault, match="policies"):
        await checked(bench)


async def test_a_sites_own_rule_is_run_as_it_is_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "fpr.d").mkdir()
    (tmp_path / "fpr.d" / "own.toml").write_text(OWN_COMMAND)
    registry = Registry([shipped_layer(), site_layer(tmp_path / "fpr.d")])
    bench.services = replace(
        bench.services, registry=registry, commands=Commands(registry, bench.pool, bench.pool.home())
    )
    bench.put("a.pdf", PDF)

    outcome = await checked(bench)

    (event,) = outcome.facts.events
    assert (event.outcome, event.note) == (EventOutcome.FAIL, "of objects/a.pdf")
    assert event.detail.endswith('policy="own.sch"')
