"""A DIP beside the AIP, as whoever gives access opens it."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import metsrw
import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import png, small_transfer
from tests.acceptance.program import Program, kill_in

pytestmark = [pytest.mark.tool, pytest.mark.slow]

ASKED = ("--set", "normalize_for_access=true", "--set", "generate_thumbnails=true")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seven originals; of one there is an access copy, of another a service copy."""
    folder = small_transfer(tmp_path / "Archive")
    (folder / "map.png").write_bytes(png(seed=2))
    (folder / "plan.png").write_bytes(png(seed=3))
    for place, name in (("access", "map.gif"), ("service", "plan.tif")):
        (folder / place).mkdir()
        subprocess.run(["convert", "-size", "9x9", "xc:red", str(folder / place / name)], check=True)
    return folder


def test_a_dip_is_stored_once_beside_its_aip_however_often_the_ingest_dies(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "output"
    ingestd = Program(tmp_path, LOG_LEVEL="error")
    command = ["ingest", source, "--output", output, "--json", *ASKED]
    for link in ("Make thumbnails", "Make the DIP", "Store the DIP, if there is one"):
        kill_in(ingestd, command, link)

    run = ingestd(*command)

    assert run.code == 0, run.err
    dip = run.result["dip"]
    (stored,) = dip["stored"]
    packed = Path(unquote(urlsplit(stored["url"]).path))
    aip = stored_path(run.result)
    assert sorted([aip, packed]) == sorted(stored_below(output))
    assert (7, 7) == (dip["access_copies"], dip["thumbnails"])
    assert {"preservation", "access", "thumbnail"} == {one["purpose"] for one in run.result["normalization"]}

    folder = unpacked(packed, tmp_path / "dip")
    originals = {file.file_uuid: file.path for file in items(folder) if file.use == "original"}
    copies = {path.name[37:]: path for path in (folder / "objects").iterdir()}
    assert Counter({"original": 7, "access": 7, "thumbnail": 7}) == Counter(file.use for file in items(folder))
    assert {path.name[:36] for path in copies.values()} == set(originals)
    assert copies["map.gif"].read_bytes() == (source / "access" / "map.gif").read_bytes()
    assert b"TIFF" not in copies["plan.jpg"].read_bytes()[:4]
    assert size(copies["plan.jpg"]) == "9x9", "made of the service copy"

    opened = open_aip(aip, tmp_path / "aip")
    assert not [path for path in opened.use if "DIP/" in path]
    assert "%SIPDirectory%DIP/" not in next((opened.folder / "data").glob("METS.*")).read_text(encoding="utf-8")


def unpacked(packed: Path, into: Path) -> Path:
    into.mkdir()
    subprocess.run(["tar", "-xf", str(packed), "-C", str(into)], check=True)
    (folder,) = into.iterdir()
    return folder


def items(folder: Path) -> list[metsrw.FSEntry]:
    (path,) = folder.glob("METS.*.xml")
    return [entry for entry in metsrw.METSDocument.fromfile(str(path)).all_files() if entry.type == "Item"]


def size(picture: Path) -> str:
    run = subprocess.run(["identify", "-format", "%wx%h", str(picture)], capture_output=True, text=True, check=True)
    return run.stdout
