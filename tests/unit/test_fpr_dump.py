"""Registries of Archivematica and a3m, in and out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from ingestd.errors import RequestError, SourceError
from ingestd.fpr.dump import read_dump
from ingestd.fpr.export import export_dump
from ingestd.fpr.layers import Entry
from ingestd.fpr.records import Command, FormatVersion, IdentificationCommand, Purpose, Rule, ScriptType
from ingestd.fpr.registry import Registry

Row = dict[str, Any]
DATE = "2013-11-15T01:18:36Z"
TIFF = "2ebdfa17-2257-49f8-8035-5f304bb46918"


def u(name: str) -> str:
    return str(uuid5(UUID(int=1), name))


def row(model: str, name: str, **fields: object) -> Row:
    return {"model": f"fpr.{model}", "pk": 1, "fields": {"uuid": u(name), **fields}}


def versioned(model: str, name: str, *, enabled: bool = True, replaces: str | None = None, **fields: object) -> Row:
    more = {"enabled": enabled, "replaces": replaces and u(replaces), "lastmodified": DATE}
    return row(model, name, **more, **fields)


def version(name: str, puid: str, **fields: Any) -> Row:
    flags = {"access_format": False, "preservation_format": False, "version": "", "slug": name, "description": name}
    return versioned("formatversion", name, **{**flags, "pronom_id": puid, "format": u("jpeg"), **fields})


def command(name: str, script: str, script_type: str = "bashScript", **fields: Any) -> Row:
    defaults: Row = {
        "tool": u("ffmpeg"),
        "description": name,
        "command": script,
        "script_type": script_type,
        "command_usage": "normalization",
        "output_location": "%outputDirectory%%prefix%%fileName%%postfix%.tif",
        "output_format": u("tiff"),
        "verification_command": u("exists"),
        "event_detail_command": u("detail"),
    }
    return versioned("fpcommand", name, **{**defaults, **fields})


def rule(name: str, to: str, purpose: str = "preservation", on: str = "ours", **fields: Any) -> Row:
    counters: Row = {"count_attempts": 7, "count_okay": 6, "count_not_okay": 1}
    return versioned("fprule", name, purpose=purpose, command=u(to), format=u(on), **counters, **fields)


NO_OUTPUT: Row = {
    "output_location": "",
    "output_format": None,
    "verification_command": None,
    "event_detail_command": None,
}
DUMP: list[Row] = [
    row("formatgroup", "image", description="Image (Raster)", slug="image"),
    row("formatgroup", "scores", description="Musical scores", slug="musical-scores"),
    row("format", "jpeg", description="JPEG", group=u("image"), slug="jpg"),
    row("format", "score", description="Our score", group=u("scores"), slug="our-score"),
    version("jfif", "fmt/43"),
    version("ours", "", format=u("score")),
    version("ours again", "", description="ours", format=u("score")),
    version("tiff", "fmt/353"),
    version("tiff again", "fmt/353"),
    row("fptool", "ffmpeg", description="ffmpeg", version="2.3-1", enabled=True, slug="ffmpeg-23-1"),
    row("fptool", "odd", description="Odd Tool", version="1", enabled=False, slug="ffmpeg"),
    command("exists", 'test -f "%outputLocation%"', command_usage="verification", **NO_OUTPUT),
    command("detail", 'echo "program=\\"ffmpeg\\""', command_usage="event_detail", **NO_OUTPUT),
    command("old", 'convert "%fileFullName%" x', enabled=False),
    command("new", "convert \"%fileFullName%\" '%outputDirectory%%prefix%%fileName%%postfix%.tif'", replaces="old"),
    command("unverified", "convert %fileFullName% x", "command", verification_command=None),
    command("evil", 'eval "convert %fileFullName%"'),
    command("python two", "print sys.argv", "pythonScript"),
    command("capital", "exiftool -X %fileFullName%", "command", command_usage="Characterization", **NO_OUTPUT),
    command("strange", "x", "perlScript"),
    rule("first rule", "old", enabled=False),
    rule("second rule", "new", replaces="first rule"),
    rule("third rule", "unverified"),
    rule("access", "unverified", "access"),
    rule("thumbnail", "evil", "thumbnail"),
    rule("characterize", "capital", "characterize", enabled=False),
    rule("characterization", "capital", "characterization", on="jfif"),
    rule("validation", "capital", "validation"),
    row("idtool", "fido", description="Fido", version="1.1", enabled=True, slug="fido-11"),
    versioned(
        "idcommand",
        "by fido",
        description="by Fido",
        config="PUID",
        script="print(1)",
        script_type="pythonScript",
        tool=u("fido"),
    ),
    versioned("idrule", "score rule", command=u("by fido"), format=u("ours"), command_output=".score"),
    versioned("idrule", "score rule too", command=u("by fido"), format=u("jfif"), command_output=".score"),
    {"model": "auth.user", "pk": 1, "fields": {"username": "somebody"}},
]


@pytest.fixture(scope="module")
def shipped() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def notes(shipped: Registry) -> list[str]:
    return read_dump(json.dumps(DUMP).encode(), shipped).notes


@pytest.fixture(scope="module")
def brought(shipped: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("import") / "site"
    read_dump(json.dumps(DUMP).encode(), shipped).write(folder)
    return Registry.load([folder])


def test_an_institution_brings_its_rules_and_the_shipped_ones_are_off(brought: Registry) -> None:
    active = {(item.purpose.value, item.format, item.command) for item in brought.active(Rule)}

    assert active == {
        ("preservation", u("ours"), u("new")),
        ("access", u("ours"), u("unverified")),
        ("characterization", "fmt/43", u("capital")),
    }


def test_format_versions_are_the_shipped_ones_where_they_are_the_same(brought: Registry) -> None:
    jfif = brought.format_version("fmt/43")
    ours = brought.find(FormatVersion, u("ours"))

    assert jfif is not None
    assert ours is not None
    assert (jfif.id, str(jfif.uuid)) == ("fmt/43", u("jfif"))
    group = brought.group_of(ours)
    assert group is not None
    assert group.name == "Musical scores"
    assert [item.command for item in brought.rules(Purpose.CHARACTERIZATION, jfif)] == [u("capital")]


def test_history_comes_along(brought: Registry) -> None:
    now = brought.find(Rule, u("second rule"))
    assert now is not None

    told = [
        (item.record.id, item.record.enabled, item.record.modified)
        for item in brought.history(now)
        if isinstance(item, Entry)
    ]

    assert told == [(u("second rule"), True, DATE), (u("first rule"), False, DATE)]
    replaced = brought.command(u("old"))
    assert replaced is not None
    assert replaced.id == u("new")


def test_a_tool_that_is_known_is_asked_for_its_version(brought: Registry) -> None:
    tool = next(tool for tool in brought.tools if str(tool.uuid) == u("ffmpeg"))
    odd = next(tool for tool in brought.tools if str(tool.uuid) == u("odd"))

    assert (tool.id, tool.noted_version, tool.version_command) == ("ffmpeg-23-1", "2.3-1", ("ffmpeg", "-version"))
    assert (odd.id, odd.program, odd.enabled) == (u("odd"), "", False)


def test_what_cannot_come_in_as_it_is_is_off_and_said(brought: Registry, notes: list[str]) -> None:
    off = {
        name
        for name in ("evil", "python two")
        if not brought.is_active(next(c for c in brought.commands if c.id == u(name)))
    }
    assert off == {"evil", "python two"}

    said = "\n".join(notes)
    for name, words in {
        "evil": "reads a variable as code",
        "python two": "not Python 3",
        "strange": "was left out",
        "unverified": "was given output-exists",
        "third rule": "is for the same purpose and format",
        "thumbnail": "is off: its command",
        "characterize": "was left out",
        "validation": "is for characterization",
        "tiff again": "has the PUID fmt/353 too",
        "ours again": "is called the same, without a PUID",
        "score rule too": "another says what",
    }.items():
        assert any(u(name) in note and words in note for note in notes), (name, said)
    assert len(notes) == 11


def test_a_folder_that_is_there_is_never_written_to(shipped: Registry, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is there already"):
        read_dump(json.dumps(DUMP).encode(), shipped).write(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[1]", b'[{"model": "fpr.format", "fields": {"uuid": "x"}}]', b"\xff"]
)
def test_what_is_no_dump_is_refused(content: bytes, shipped: Registry) -> None:
    with pytest.raises(SourceError):
        read_dump(content, shipped)


def test_what_was_brought_in_goes_out_as_it_was(brought: Registry) -> None:
    out = {(item["model"], item["fields"]["uuid"]): item["fields"] for item in export_dump(brought)}

    kept = (
        "purpose",
        "command",
        "script_type",
        "output_location",
        "replaces",
        "enabled",
        "pronom_id",
        "config",
        "script",
        "lastmodified",
    )
    for item in DUMP:
        fields = item["fields"]
        changed = {
            u(name)
            for name in (
                "evil",
                "python two",
                "strange",
                "ours again",
                "third rule",
                "thumbnail",
                "characterize",
                "validation",
                "tiff again",
                "score rule too",
            )
        }
        if not item["model"].startswith("fpr.") or fields["uuid"] in changed:
            continue
        told = out[item["model"], fields["uuid"]]
        if fields.get("pronom_id"):  # it has the place of the shipped one of another identifier
            told = {**told, "replaces": None}
        assert {key: told[key] for key in kept if key in fields} == {key: fields[key] for key in kept if key in fields}


def test_the_shipped_registry_goes_out_and_comes_back_the_same(shipped: Registry, tmp_path: Path) -> None:
    out = export_dump(shipped)
    read_dump(json.dumps(out).encode(), shipped).write(tmp_path / "site")
    again = export_dump(Registry.load([tmp_path / "site"]))

    def keyed(rows: list[Row]) -> dict[tuple[str, str], Row]:
        slugless = ({key: value for key, value in item["fields"].items() if key != "slug"} for item in rows)
        return {(item["model"], item["fields"]["uuid"]): fields for item, fields in zip(rows, slugless, strict=True)}

    assert keyed(out) == keyed(again)


def test_an_export_refers_only_to_what_is_in_it(shipped: Registry) -> None:
    out = export_dump(shipped)
    models: dict[str, set[str]] = {}
    for item in out:
        models.setdefault(item["model"], set()).add(item["fields"]["uuid"])
    targets = {
        ("format", "group"): "formatgroup",
        ("formatversion", "format"): "format",
        ("fpcommand", "tool"): "fptool",
        ("fpcommand", "output_format"): "formatversion",
        ("fpcommand", "verification_command"): "fpcommand",
        ("fpcommand", "event_detail_command"): "fpcommand",
        ("fprule", "command"): "fpcommand",
        ("fprule", "format"): "formatversion",
        ("idcommand", "tool"): "idtool",
        ("idrule", "command"): "idcommand",
    }

    for item in out:
        for (model, key), target in targets.items():
            if item["model"] == f"fpr.{model}" and item["fields"][key] is not None:
                assert item["fields"][key] in models[f"fpr.{target}"], item


def test_an_exported_command_needs_nothing_of_ingestd(shipped: Registry) -> None:
    scripts = [item["fields"]["command"] for item in export_dump(shipped) if item["model"] == "fpr.fpcommand"]

    assert scripts
    for script in scripts:
        for ours in ("%threads%", "%memory%", "%language%", "%toolName%", "%toolVersion%"):
            assert ours not in script


@pytest.mark.tool
@pytest.mark.parametrize(("content", "outcome"), [("<a/>", "pass"), ("<a>", "fail")])
def test_an_exported_validation_prints_its_outcome(
    content: str, outcome: str, shipped: Registry, tmp_path: Path
) -> None:
    fields = next(
        item["fields"]
        for item in export_dump(shipped)
        if item["model"] == "fpr.fpcommand" and item["fields"]["description"] == "Well-formed XML with xmllint"
    )
    path = tmp_path / 'it\'s "$(touch x)".xml'
    path.write_text(content)
    script = tmp_path / "script.py"
    script.write_text(fields["command"])

    done = subprocess.run([sys.executable, script, path], capture_output=True, check=True, cwd=tmp_path)

    assert fields["script_type"] == ScriptType.PYTHON_SCRIPT
    assert json.loads(done.stdout)["eventOutcomeInformation"] == outcome
    assert not (tmp_path / "x").exists()


def test_a_record_that_a_site_wrote_anew_goes_out_with_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(
        '[[command]]\nid = "copy"\nuuid = "11111111-2222-3333-4444-555555555555"\ntool = "cp"\nusage = "normalization"\n'
        'description = "Ours"\nscript_type = "command"\nscript = "cp %fileFullName% %outputFileName%"\n'
        'output_location = "%outputFileName%"\nverification = "output-exists"\n'
    )
    registry = Registry.load([tmp_path])
    before = next(item for item in Registry.load().every(Command) if item.id == "copy")

    out = {item["fields"]["uuid"]: item["fields"] for item in export_dump(registry) if item["model"] == "fpr.fpcommand"}

    assert out["11111111-2222-3333-4444-555555555555"]["enabled"]
    assert not out[str(before.identifier)]["enabled"]
    assert out["11111111-2222-3333-4444-555555555555"]["replaces"] == str(before.identifier)


def test_what_an_export_brings_back_unchanged_keeps_what_the_dump_has_no_word_for(
    shipped: Registry, tmp_path: Path
) -> None:
    made = read_dump(json.dumps(export_dump(shipped)).encode(), shipped)
    made.write(tmp_path / "back")

    back = Registry.load([tmp_path / "back"])

    for name in ("exiftool", "exiftool-any", "jhove-tiff", "xmllint"):
        before, after = shipped.command(name), back.command(name)
        assert before is not None
        assert after is not None
        assert (before.adapter, before.otherwise, before.outcome, before.exit_codes) == (
            after.adapter,
            after.otherwise,
            after.outcome,
            after.exit_codes,
        )
    identifies = back.find(IdentificationCommand, "siegfried")
    assert identifies is not None
    assert "siegfried" == identifies.adapter
