"""`ingestd aip` as it is called: what is printed, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingestd.cli import main
from tests.aip_samples import LETTER, NAME, PHOTO, Sample, archivematica, mets, packed


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["aip", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code, out, _ = run(capsys, *arguments, "--json")
    return code, json.loads(out)


def test_an_aip_is_told_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(archivematica(tmp_path), "7z")

    code, out, _ = run(capsys, "inspect", path)
    told, data = as_json(capsys, "inspect", path, "--files", "1")

    assert (0, 0) == (code, told)
    assert [line for line in out.splitlines() if "tower.jpg" in line and "fmt/43" in line]
    assert (NAME, 1, 9) == (data["name"], len(data["tree"]), data["not_shown"])
    assert {"files": 2, "size_bytes": len(LETTER.content) + len(PHOTO.content)} == data["by_use"]["original"]


def test_the_exit_code_says_good_findings_or_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = archivematica(tmp_path)

    good, out, _ = run(capsys, "verify", folder)
    (folder / "data" / LETTER.path).unlink()
    bad, told, _ = run(capsys, "verify", folder)
    also_bad, data = as_json(capsys, "verify", folder)
    unusable, _, err = run(capsys, "verify", tmp_path / "nowhere")

    assert (0, 1, 1, 2) == (good, bad, also_bad, unusable)
    assert "Valid." in out
    assert f"rfc8493.3.complete  data/{LETTER.path}: expected a file" in told
    assert {"rfc8493.3.complete", "mets.fileSec", "rfc8493.2.2.2"} == {found["rule"] for found in data["findings"]}
    assert "source.not_found" in err


def test_a_file_comes_out_to_stdout_and_nothing_else_with_it(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code = main(["aip", "extract", str(archivematica(tmp_path)), PHOTO.path, "--output", "-", "--json"])
    out, err = capfdbinary.readouterr()

    assert (0, PHOTO.content) == (code, out)
    assert f"data/{PHOTO.path}" == json.loads(err)["path"]


def test_the_differences_are_listed_and_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = archivematica(tmp_path / "one")
    two = archivematica(tmp_path / "two", files=[LETTER])

    same, _, _ = run(capsys, "diff", one, one)
    code, out, _ = run(capsys, "diff", one, two)
    _, data = as_json(capsys, "diff", one, two)

    assert (0, 1) == (same, code)
    assert "file removed (3)" in out
    assert 3 == data["counts"]["file removed"]


def test_the_report_is_one_page_that_needs_nothing_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = Sample(path="objects/&lt;script&gt;.txt", content=b"x", puid="&lt;b&gt;")
    image = Sample(path="objects/tower.jpg", content=b"\xff\xd8\xff\xe0 a small tower", puid="fmt/43")
    no_image = Sample(path="objects/none.png", content=b"<svg onload='alert(1)'/>")
    files = [evil, image, no_image]
    folder = archivematica(tmp_path, files=[image, no_image], text=mets(files))
    output = tmp_path / "page.html"

    code, data = as_json(capsys, "report", folder, "--output", output)
    again, _, err = run(capsys, "report", folder, "--output", output)
    page = output.read_text()

    assert (0, 1, 2) == (code, data["images"], again)
    assert "left as it is" in err
    assert "data:image/jpeg;base64," in page
    assert "fixity check" in page
    assert "<b>&lt;b" not in page
    assert "&lt;b&gt;" in page
    assert not [word for word in ("<script", "onload", "http://", "https://", "<b>&", "<link") if word in page]
    assert "default-src 'none'" in page
