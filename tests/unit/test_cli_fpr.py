"""`ingestd fpr`: what each action prints, and its exit code."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ingestd.cli.fpr import fpr
from ingestd.cli.fpr_parser import add_actions
from ingestd.cli.main import main
from ingestd.config import Settings
from ingestd.errors import IngestError, RequestError, SourceError, SystemFault, ToolError
from ingestd.fpr.records import Command, Purpose
from ingestd.fpr.registry import Registry
from ingestd.journal import RuleCount, ServiceJournal
from ingestd.messages import Event, EventData, EventType, RequestState, parse_request
from tests import fpr_samples as samples
from tests.bench import need

SITE = """
[[disable]]
kind = "rule"
id = "validation:fmt/101:xmllint"
reason = "we trust our XML"

[[command]]
id = "copy-all"
tool = "xmllint"
usage = "validation"
description = "Says nothing"
script_type = "command"
script = "true %inputFile%"

[[rule]]
purpose = "validation"
format = "x-fmt/111"
command = "copy-all"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "fpr.d"
    folder.mkdir()
    (folder / "site.toml").write_text(SITE)
    return folder


async def run(settings: Settings, *arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_actions(parser)
    return await fpr(parser.parse_args([str(argument) for argument in arguments]), settings)


async def printed(capsys: pytest.CaptureFixture[str], settings: Settings, *arguments: str | Path) -> Any:
    assert await run(settings, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def lines(capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    return capsys.readouterr().out.splitlines()


async def test_a_format_is_shown_with_its_group_and_its_rules(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert await run(settings, "show", "fmt/353") == 0

    out = capsys.readouterr().out
    assert out.startswith("version fmt/353\n")
    assert "Image (Raster)" in out
    assert "validation: jhove-tiff" in out


async def test_every_record_of_an_id_is_shown_and_json_says_the_same(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    found = await printed(capsys, settings, "show", "exiftool")

    assert {record["kind"] for record in found} == {"tool", "command"}
    assert all(record["active"] and record["file"].startswith("shipped/") for record in found)


async def test_a_record_is_found_by_archivematicas_identifier(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    found = await printed(capsys, settings, "show", "48086e84-a933-42e0-87fd-ce195137c48d")

    assert [(record["kind"], record["format"]) for record in found] == [("rule", "fmt/7")]


async def test_an_id_that_is_not_there_is_an_error_that_names_the_nearest(settings: Settings) -> None:
    with pytest.raises(RequestError, match="jhove-tif") as caught:
        await run(settings, "show", "jhove-tif")

    assert "jhove-tiff" in caught.value.remediation


async def test_rules_are_told_by_purpose(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    found = await printed(capsys, settings, "rules", "--purpose", "validation")

    assert {rule["purpose"] for rule in found} == {"validation"}
    assert len(found) > 100


async def test_rules_of_a_format_have_the_defaults_among_them(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    found = await printed(capsys, settings, "rules", "--puid", "x-fmt/111")

    assert "default_thumbnail" in {rule["purpose"] for rule in found}


async def test_a_table_of_rules_names_purpose_format_command_and_tool(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert await run(settings, "rules", "--puid", "fmt/353", "--purpose", "validation") == 0

    head, row, count = lines(capsys)
    assert head.split() == ["PURPOSE", "FORMAT", "DESCRIPTION", "COMMAND", "TOOL", "OK", "RULE"]
    assert row.split()[:2] == ["validation", "fmt/353"]
    assert "JHOVE" in row
    assert count == "1 rules"


async def test_rules_tell_how_often_they_worked_out_here(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    journal = await ServiceJournal.open(settings.journal_path)
    envelope = parse_request({"id": "1", "source": "me", "data": {"source": {"location": "/x"}}})
    package = (await journal.add(envelope, origin="amqp")).package
    data = EventData(request_id="1", sequence=0, state=RequestState.RECEIVED)
    done = Event(type=EventType.AIP_STORED.full, subject="1", data=data)
    rule = "preservation:fmt/116"
    counts = [
        RuleCount(rule=rule, command="imagemagick-tiff", attempts=40, okay=39),
        RuleCount(rule=rule, command="another", attempts=7, okay=0),
    ]
    await journal.advance(package, RequestState.SUCCEEDED, done, publish=False, rules=counts)
    await journal.close()

    (told,) = await printed(capsys, settings, "rules", "--puid", "fmt/116", "--purpose", "preservation")
    await run(settings, "rules", "--puid", "fmt/116")

    assert (40, 39, 1) == (told["attempts"], told["okay"], told["not_okay"])
    assert "97 % of 40" in capsys.readouterr().out


async def test_a_purpose_that_does_not_exist_is_an_error_that_lists_those_that_do(settings: Settings) -> None:
    with pytest.raises(RequestError) as caught:
        await run(settings, "rules", "--purpose", "preserve")

    assert all(purpose in caught.value.violations[0].expected for purpose in Purpose)


async def test_formats_are_found_by_text_in_any_case(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    found = await printed(capsys, settings, "formats", "generic MKV")
    await run(settings, "formats", "fmt/569")

    assert "fmt/569" in {version["puid"] for version in found}
    assert "policy_check" not in found[0]["purposes"]
    assert lines(capsys)[1].startswith("fmt/569")


async def test_commands_say_whether_their_tools_can_be_had(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    found = await printed(capsys, settings, "commands")

    assert {command["id"] for command in found} == {command.id for command in Registry.load().active(Command)}
    assert all(command["available"] for command in found)
    assert {command["available"] for command in found if command["id"] == "output-exists"} == {"yes"}


async def test_history_says_which_layer_said_what(
    capsys: pytest.CaptureFixture[str], settings: Settings, site: Path
) -> None:
    settings = settings.model_copy(update={"fpr_folders": (site,)})

    assert await run(settings, "history", "validation:fmt/101:xmllint") == 0

    head, newest, oldest = lines(capsys)
    assert head == "rule validation:fmt/101:xmllint (disabled)"
    assert newest == "  fpr.d/site.toml: disables validation:fmt/101:xmllint (we trust our XML)"
    assert oldest.startswith("  shipped/rules-validation.csv")


async def test_diff_says_what_a_site_changes(
    capsys: pytest.CaptureFixture[str], settings: Settings, site: Path
) -> None:
    settings = settings.model_copy(update={"fpr_folders": (site,)})

    changes = await printed(capsys, settings, "diff")
    await run(settings, "diff")

    assert [(c["kind"], c["id"], c["before"] is None, c["after"] is None) for c in changes] == [
        ("command", "copy-all", True, False),
        ("rule", "validation:fmt/101:xmllint", False, True),
        ("rule", "validation:x-fmt/111:copy-all", True, False),
    ]
    assert [line[0] for line in lines(capsys)] == ["+", "-", "+"]


async def test_diff_of_a_registry_without_site_folders_says_so(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert await run(settings, "diff") == 0

    assert lines(capsys) == ["Nothing of the shipped registry is changed."]


async def test_a_sound_registry_is_said_to_be_sound(
    capsys: pytest.CaptureFixture[str], settings: Settings, site: Path
) -> None:
    assert await run(settings, "check", site) == 0

    assert capsys.readouterr().out.startswith("sound: ")


async def test_every_fault_of_a_folder_is_printed_with_exit_code_1(
    capsys: pytest.CaptureFixture[str], settings: Settings, site: Path
) -> None:
    (site / "rules.csv").write_text("purpose,format,command\nvalidation,fmt/1,nothing\nvalidation,fmt/x/y,xmllint\n")

    assert await run(settings, "check", site) == 1

    *faults, count = lines(capsys)
    assert len(faults) == 2
    assert all("fpr.d/rules.csv" in fault for fault in faults)
    assert count == "2 thing(s) wrong"


@pytest.mark.tool
async def test_a_rule_is_tried_on_a_file_and_everything_about_it_is_shown(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    need("xmllint")
    samples.xml(tmp_path / "a b.xml")

    assert await run(settings, "test", "validation:fmt/101:xmllint", tmp_path / "a b.xml") == 0

    out = capsys.readouterr().out
    assert f"Command line  xmllint --noout --nonet '{tmp_path}/a b.xml'" in out
    assert "Outcome       pass" in out
    assert 'Event detail  program="xmllint' in out
    assert "Result        it did its work" in out


@pytest.mark.tool
async def test_a_file_that_fails_its_validation_is_no_failure_of_the_rule(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    need("xmllint")
    (tmp_path / "a.xml").write_text("<a>")

    told = await printed(capsys, settings, "test", "xmllint", tmp_path / "a.xml")

    assert told["finding"]["outcome"] == "fail"
    assert told["problem"] == ""


@pytest.mark.tool
async def test_what_a_normalization_writes_is_shown_with_its_format_and_verification(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    need("convert")
    samples.picture(tmp_path / "a.bmp")

    told = await printed(capsys, settings, "test", "imagemagick-tiff", tmp_path / "a.bmp", "--output", tmp_path / "out")

    assert told["problem"] == ""
    assert [(item["path"], item["puid"]) for item in told["written"]] == [(told["output"], "fmt/353")]
    assert (tmp_path / "out" / told["output"]).is_file()
    assert told["verification"]["problem"] == ""
    assert told["exit_code"] == 0


@pytest.mark.tool
async def test_a_rule_that_does_not_do_its_work_ends_with_exit_code_1(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    need("convert")
    (tmp_path / "a.bmp").write_text("no picture")

    assert await run(settings, "test", "imagemagick-tiff", tmp_path / "a.bmp") == 1

    assert "Result        ImageMagick ended with exit code" in capsys.readouterr().out


async def test_an_identification_command_is_tried_too_and_says_what_it_printed_means(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.odd-one").write_bytes(b"")

    told = await printed(capsys, settings, "test", "extension", tmp_path / "a.png")
    assert (".png", "fmt/11", "") == (told["stdout"].strip(), told["puid"], told["problem"])

    assert await run(settings, "test", "extension", tmp_path / "a.odd-one") == 1
    assert "Format        no identification rule says what it printed" in lines(capsys)


async def test_a_file_that_is_not_there_is_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.xml"):
        await run(settings, "test", "xmllint", tmp_path / "a.xml")


async def test_a_tool_that_is_not_here_is_an_error_that_says_what_brings_it(
    settings: Settings, tmp_path: Path, site: Path
) -> None:
    (site / "tool.toml").write_text(
        '[[tool]]\nid = "nothing"\nname = "Nothing"\nprogram = "no-such-program"\ndebian = "no-such-package"\n'
        '[[command]]\nid = "none"\ntool = "nothing"\nusage = "validation"\ndescription = "?"\n'
        'script_type = "command"\nscript = "no-such-program"\n'
    )
    samples.xml(tmp_path / "a.xml")

    with pytest.raises(ToolError, match="Nothing is not installed") as caught:
        await run(settings.model_copy(update={"fpr_folders": (site,)}), "test", "none", tmp_path / "a.xml")

    assert "no-such-package" in caught.value.remediation


async def test_what_is_exported_can_be_imported_as_a_site_folder(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    assert await run(settings, "export", tmp_path / "dump.json") == 0
    assert lines(capsys) == [str(tmp_path / "dump.json")]

    made = await printed(capsys, settings, "import", tmp_path / "dump.json", tmp_path / "theirs")

    assert made["records"]["rule"] > 1000
    assert await run(settings, "check", tmp_path / "theirs") == 0


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}'])
async def test_what_is_no_dump_is_not_imported(settings: Settings, tmp_path: Path, content: str) -> None:
    (tmp_path / "dump.json").write_text(content)

    with pytest.raises(IngestError):
        await run(settings, "import", tmp_path / "dump.json", tmp_path / "theirs")

    assert not (tmp_path / "theirs").exists()


async def test_a_registry_that_is_not_sound_is_an_error_of_every_other_action(settings: Settings, site: Path) -> None:
    (site / "rules.csv").write_text("purpose,format,command\nvalidation,fmt/1,nothing\n")

    with pytest.raises(SystemFault, match="nothing"):
        await run(settings.model_copy(update={"fpr_folders": (site,)}), "rules")


def test_a_file_that_cannot_be_written_is_said_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = tmp_path / "none" / "dump.json"

    assert main(["fpr", "export", str(place)]) == 2

    assert f"{place}: No such file or directory" in capsys.readouterr().err


def test_who_reads_no_further_gets_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m ingestd fpr formats | head -n 1", shell=True, capture_output=True, text=True, check=False
    )

    assert (1, "") == (len(done.stdout.splitlines()), done.stderr)
