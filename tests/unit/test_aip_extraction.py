from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ingestd import aip
from ingestd.errors import Code, ContentError, SourceError, StorageError
from tests.aip_samples import FILES, LETTER, NAME, PHOTO, Sample, archivematica, packed

FORMS = ["folder", "7z", "zip", "tar", "tar.gz", "tar.bz2", "tar.zst"]


def an_aip(tmp_path: Path, form: str) -> Path:
    folder = archivematica(tmp_path / "made")
    return folder if form == "folder" else packed(folder, form)


@pytest.mark.parametrize("form", FORMS)
async def test_one_file_comes_out_whole_and_proved(tmp_path: Path, form: str) -> None:
    output = tmp_path / "out"
    output.mkdir()

    found = await aip.extract(an_aip(tmp_path, form), f"data/{PHOTO.path}", output)

    assert PHOTO.content == (output / "tower.jpg").read_bytes()
    assert (str(output / "tower.jpg"), len(PHOTO.content), 2, []) == (
        found.output,
        found.size_bytes,
        found.compared,
        found.findings,
    )
    assert ["tower.jpg"] == [path.name for path in output.iterdir()]


@pytest.mark.parametrize("name", [PHOTO.path, "photos/tower.jpg", f"%transferDirectory%{PHOTO.path}", PHOTO.identifier])
async def test_a_file_is_called_by_path_received_name_or_uuid(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()

    await aip.extract(an_aip(tmp_path, "7z"), name, out)

    assert PHOTO.content == out.getvalue()


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "letter.txt"
    output.write_text("mine")

    with pytest.raises(StorageError, match="left as it is"):
        await aip.extract(an_aip(tmp_path, "zip"), LETTER.path, output)

    assert "mine" == output.read_text()


async def test_a_damaged_file_comes_out_and_is_said_to_be_damaged(tmp_path: Path) -> None:
    folder = archivematica(tmp_path)
    (folder / "data" / LETTER.path).write_bytes(b"Dear Zoa,\n")

    found = await aip.extract(folder, LETTER.path, tmp_path)

    assert {"premis.1.5.2", "rfc8493.3.valid"} == {finding.rule for finding in found.findings}
    assert b"Dear Zoa,\n" == (tmp_path / "letter.txt").read_bytes()


async def test_a_name_that_several_files_were_received_with_must_be_a_path(tmp_path: Path) -> None:
    two = [Sample(path=f"objects/{folder}/a.txt", content=b"a") for folder in ("one", "two")]
    folder = archivematica(tmp_path, files=two)
    mets = next((folder / "data").glob("METS*"))
    mets.write_text(mets.read_text().replace("objects/one/a.txt</original", "objects/two/a.txt</original"))

    with pytest.raises(SourceError) as caught:
        await aip.extract(folder, "two/a.txt", tmp_path)

    assert ["data/objects/one/a.txt", "data/objects/two/a.txt"] == [found.path for found in caught.value.violations]


async def test_what_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    folder = archivematica(tmp_path, files=[*FILES, Sample(path="../../secret.txt", content=b"")])
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "data/objects/link.txt").symlink_to(tmp_path / "secret.txt")

    for name in ("../../secret.txt", "../secret.txt", "data/objects/link.txt", str(tmp_path / "secret.txt")):
        with pytest.raises(SourceError) as caught:
            await aip.extract(folder, name, tmp_path / "out")

        assert Code.SOURCE_NOT_FOUND is caught.value.code
    assert not (tmp_path / "out").exists()


async def test_of_a_truncated_package_nothing_half_is_left(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 4000
    path = tmp_path / f"{NAME}.tar"
    with tarfile.open(packed(archivematica(tmp_path / "made"), "tar")) as made, tarfile.open(path, "w") as tar:
        for member in made:
            tar.addfile(member, made.extractfile(member) if member.isfile() else None)
        last = tarfile.TarInfo(f"{NAME}/data/objects/noise.bin")
        last.size = len(noise)
        tar.addfile(last, io.BytesIO(noise))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 600_000)

    with pytest.raises(ContentError, match=r"noise\.bin cannot be read"):
        await aip.extract(path, "objects/noise.bin", tmp_path / "noise.bin")

    assert not (tmp_path / "noise.bin").exists()
