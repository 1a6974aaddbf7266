"""The shipped policy, held against the facts that it is made from and against what it promises."""

from __future__ import annotations

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

from ingestd.fpr.records import Adapter, Command, FormatVersion, Purpose, Rule, ScriptType, Usage
from ingestd.fpr.registry import Registry

SWITCHED_OFF = {
    "preservation": {"x-fmt/390", "x-fmt/391", "x-fmt/398", "fmt/1507", "fmt/367", "x-fmt/185"},
    "access": {"fmt/367", "x-fmt/185"},
    "thumbnail": {"fmt/367", "x-fmt/185"},
    "extract": {"fmt/842", "fmt/843"},
}
"""Active rules of the incumbents that the policy document says are off here."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def facts(shared: Path) -> Path:
    return shared / "fpr"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_format_version_and_group_of_the_facts_is_there(registry: Registry, facts: Path) -> None:
    expected = {
        (row["archivematica_uuid"], row["puid"], row["group"], row["preservation_format"], row["access_format"])
        for row in rows(facts / "formats.csv")
    }

    actual = set()
    for version in registry.versions:
        group = registry.group_of(version)
        assert group is not None
        flags = (str(int(version.preservation)), str(int(version.access)))
        actual.add((str(version.uuid), version.puid, group.name, *flags))
    assert expected == actual


def test_every_active_rule_of_the_facts_is_there_but_those_that_are_off(registry: Registry, facts: Path) -> None:
    versions = {str(version.uuid): version.id for version in registry.versions}
    names = {row["archivematica_uuid"]: row for row in rows(facts / "formats.csv")}
    by_name = {
        (row["format"], row["version_description"]): versions[uuid] for uuid, row in names.items() if not row["puid"]
    }
    ours = {(rule.purpose.value, rule.format) for rule in registry.active(Rule)}

    missing: dict[str, set[str]] = {}
    for row in rows(facts / "rules.csv"):
        version = row["puid"] or by_name[row["format"], row["version_description"]]
        if row["state"] == "active" and (row["purpose"], version) not in ours:
            missing.setdefault(row["purpose"], set()).add(version)

    assert missing == SWITCHED_OFF


def test_identification_never_returns_two_versions_for_a_puid(registry: Registry) -> None:
    counted = Counter(version.puid for version in registry.active(FormatVersion) if version.puid)

    assert counted.most_common(1)[0][1] == 1


def test_video_becomes_ffv1_and_office_documents_pdfa(registry: Registry) -> None:
    made = {
        puid: [rule.command for rule in registry.choose(Purpose.PRESERVATION, registry.format_version(puid))]
        for puid in ("fmt/5", "x-fmt/384", "fmt/199", "fmt/412", "fmt/214", "fmt/215", "x-fmt/111", "x-fmt/249")
    }

    assert made == {
        "fmt/5": ["ffmpeg-ffv1"],
        "x-fmt/384": ["ffmpeg-ffv1"],
        "fmt/199": ["ffmpeg-ffv1"],
        "fmt/412": ["libreoffice-writer-pdfa"],
        "fmt/214": ["libreoffice-calc-pdfa"],
        "fmt/215": ["libreoffice-impress-pdfa"],
        "x-fmt/111": ["libreoffice-writer-pdfa"],
        "x-fmt/249": ["readpst-mbox"],
    }


@pytest.mark.parametrize(
    "puid", ["fmt/3", "fmt/4", "fmt/11", "fmt/12", "fmt/13", "fmt/42", "fmt/43", "fmt/44", "fmt/645", "fmt/1507"]
)
def test_png_gif_and_jpeg_are_left_alone(registry: Registry, puid: str) -> None:
    assert registry.choose(Purpose.PRESERVATION, registry.format_version(puid)) == ()


def test_every_rule_that_is_off_is_kept_as_one_that_a_site_can_switch_on(registry: Registry) -> None:
    for purpose, versions in SWITCHED_OFF.items():
        for version in versions:
            rule = registry.find(Rule, f"{purpose}:{version}")
            assert rule is not None
            assert not rule.enabled


def test_every_active_command_has_a_rule_or_is_named_by_a_command(registry: Registry) -> None:
    used = {rule.command for rule in registry.every(Rule)}
    used |= {
        name
        for command in registry.commands
        for name in (command.verification, command.event_detail, command.otherwise)
    }
    asked_for = {"fits", "jhove-describe", "verapdf", "jhove-jp2", "imagemagick-jpeg"}

    assert {command.id for command in registry.active(Command)} - used <= asked_for


def test_normalizations_are_verified_and_word_their_event(registry: Registry) -> None:
    commands = [command for command in registry.active(Command) if command.usage is Usage.NORMALIZATION]

    assert commands
    assert [
        command.id
        for command in commands
        if not (command.verification and command.event_detail and command.output_format)
    ] == []


def test_python_scripts_are_python(registry: Registry) -> None:
    scripts = [(command.script_type, command.script) for command in registry.commands]
    scripts += [(command.script_type, command.script) for command in registry.identification_commands]

    for script_type, script in scripts:
        if script_type is ScriptType.PYTHON_SCRIPT:
            ast.parse(script)


def test_what_runs_warm_has_its_own_command_line_too(registry: Registry) -> None:
    warm = {command.adapter for command in registry.active(Command) if command.adapter}

    assert warm == set(Adapter)
    assert all(command.script_type is ScriptType.COMMAND for command in registry.active(Command) if command.adapter)


def test_every_tool_says_where_it_comes_from_and_how_its_version_is_asked(registry: Registry) -> None:
    without = [
        tool.id
        for tool in registry.tools
        if not (tool.debian or tool.pypi or tool.id in {"fits", "verapdf", "ingestd"})
        or not (tool.version_command or tool.pypi or tool.id == "ingestd")
    ]

    assert without == []


def test_programs_that_would_use_every_processor_are_told_how_many_threads_they_may_use(registry: Registry) -> None:
    told = {
        "ffmpeg -nostdin": "-threads %threads%",
        "-frames:v": "-filter_threads %threads%",
        "-c:v": "-filter_threads %threads%",
        "convert ": "-limit thread %threads%",
        "7z x": "-mmt=%threads%",
    }
    scripts = [command.script for command in registry.active(Command)]

    assert all(any(program in script for script in scripts) for program in told)
    for script in scripts:
        for program, option in told.items():
            assert program not in script or option in script, script


def test_no_program_reads_over_a_network(registry: Registry) -> None:
    scripts = [command.script for command in registry.active(Command)]

    for script in scripts:
        for part in ("ffmpeg -nostdin", "ffprobe -v"):
            assert script.count(part) <= script.count("-protocol_whitelist file"), script
