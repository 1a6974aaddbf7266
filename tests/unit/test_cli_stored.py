"""`aip list|locate|fetch|verify UUID|replicate|delete` and `audit`, run as a user runs them."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from ingestd.cli import main
from ingestd.mets import write_pointer
from ingestd.storage import open_archive
from tests.storing import PACKAGE, store, write
from tests.unit.test_mets_pointer import POINTER

OTHER = uuid.UUID("01234567-89ab-4def-8123-456789abcdee")


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two locations; the first one holds two AIPs."""
    locations = {"one": str(tmp_path / "one"), "two": {"url": str(tmp_path / "two"), "layout": "ocfl"}}
    monkeypatch.setenv("INGESTD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("INGESTD_LOCATIONS", json.dumps(locations))
    monkeypatch.setenv("INGESTD_DEFAULT_LOCATION", "one")
    archive = open_archive(str(tmp_path / "one"))
    for package in (PACKAGE, OTHER):
        pointer = {f"pointer.{package}": write_pointer(replace(POINTER, package=package))}
        asyncio.run(store(archive, write(tmp_path), b"an AIP", package, **pointer))
    return tmp_path


def content_of(house: Path, package: uuid.UUID = PACKAGE) -> Path:
    digits = package.hex
    return house.joinpath("one", *[digits[at : at + 4] for at in range(0, 32, 4)], "a.7z")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_is_stored_is_listed_located_and_fetched(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["aip", "list", "--json"])
    assert {str(PACKAGE), str(OTHER)} == {str(line["package"]) for line in lines(capsys)}
    assert 0 == main(["aip", "list"])
    assert f"{PACKAGE}  aip  v1  " in capsys.readouterr().out
    assert 0 == main(["aip", "locate", str(PACKAGE)])
    assert content_of(house).as_uri() in capsys.readouterr().out
    assert 0 == main(["aip", "fetch", str(PACKAGE), "--output", str(house / "out")])

    assert b"an AIP" == (house / "out/a.7z").read_bytes()


def test_a_copy_on_another_location_is_made_verified_and_deleted(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["aip", "replicate", str(PACKAGE), "--to", "two"])
    capsys.readouterr()
    assert 0 == main(["aip", "verify", str(PACKAGE), "--json"])
    assert [("one", True), ("two", True)] == [(line["location"], line["good"]) for line in lines(capsys)]
    (copied,) = (house / "two").rglob(f"v1/content/pointer.{PACKAGE}.xml")
    assert '"one"; target="two"' in copied.read_text().replace("&quot;", '"'), "a copy says that it is one"
    assert 0 == main(["aip", "delete", str(PACKAGE), "--location", "one", "--reason", "moved"])
    capsys.readouterr()
    assert 0 == main(["aip", "locate", str(PACKAGE), "--json"])

    assert ["two"] == [copy["location"] for copy in json.loads(capsys.readouterr().out)]
    assert "moved" in content_of(house).with_name("a.7z.deleted").read_text()


def test_a_packed_aip_without_its_pointer_file_is_not_good(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer = content_of(house).with_name(f"pointer.{PACKAGE}.xml")
    pointer.unlink()

    assert 1 == main(["aip", "verify", str(PACKAGE), "--json"])
    (line,) = lines(capsys)
    assert ([pointer.name], False) == (line["missing"], line["good"])
    assert 1 == main(["aip", "verify", str(PACKAGE)])
    assert f"MISSING: {pointer.name}" in capsys.readouterr().out
    assert 0 == main(["aip", "verify", str(OTHER)])


@pytest.mark.parametrize(
    "command",
    [
        ["aip", "locate", str(uuid.uuid4())],
        ["aip", "locate", "no-uuid"],
        ["aip", "list", "--location", "nowhere"],
        ["aip", "replicate", str(PACKAGE), "--to", "nowhere"],
        ["audit", "--location", "nowhere"],
    ],
)
def test_what_is_not_there_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(command)
    assert "What to do" in capsys.readouterr().err


def test_an_audit_finds_damage_and_repairs_it_from_a_good_copy(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["aip", "replicate", str(PACKAGE), "--to", "two"])
    assert 0 == main(["audit"])
    content_of(house).write_bytes(b"an A1P")
    content_of(house, OTHER).unlink()
    capsys.readouterr()

    assert 1 == main(["audit", "--json"])
    found = {(line["package"], line["location"]): line["found"] for line in lines(capsys) if not line["good"]}
    assert "gone" == found[str(OTHER), "one"]
    assert {(str(PACKAGE), "one"), (str(OTHER), "one")} == set(found)

    assert 1 == main(["audit", "--repair", "--json"])
    mended = [line["package"] for line in lines(capsys) if line["repaired_from"] == "two"]
    assert [str(PACKAGE)] == mended
    assert b"an AIP" == content_of(house).read_bytes()


def test_an_audit_that_was_stopped_goes_on_where_it_was(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = house / "data" / "audit.json"
    main(["aip", "list", "--json"])
    first = content_of(house, OTHER).relative_to(house / "one")
    capsys.readouterr()
    progress.parent.mkdir(exist_ok=True)
    progress.write_text(json.dumps({"one": f"{first}.sha256"}))

    assert 0 == main(["audit", "--json"])
    assert [str(PACKAGE)] == [line["package"] for line in lines(capsys)]
    assert not progress.exists()


def test_reconciling_nothing_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["reconcile"])
    assert "no request" in capsys.readouterr().err


def test_locations_are_shown_as_they_were_set_and_credentials_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGESTD_CREDENTIALS__ACME__SECRET_ACCESS_KEY", "s3cret")
    assert 0 == main(["config"])
    shown = dict(line.split(" = ", 1) for line in capsys.readouterr().out.splitlines())

    assert "ocfl" == json.loads(shown["locations"])["two"]["layout"]
    assert {"acme": {"secret_access_key": "**********"}} == json.loads(shown["credentials"])
