"""AIPs packed by the real programs in every form, and read back."""

import asyncio
import hashlib
import os
import shutil
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.config import ToolSettings
from ingestd.errors import Code, ToolError
from ingestd.messages import CompressionAlgorithm
from ingestd.premis import DigestAlgorithm
from ingestd.tools.packed import Member, digests
from ingestd.tools.packing import pack, suffix
from ingestd.tools.pool import Pool

pytestmark = pytest.mark.tool

ALL = [algorithm for algorithm in CompressionAlgorithm if algorithm is not CompressionAlgorithm.UNCOMPRESSED]
PROGRAM = {".7z": "7z", ".tar": "tar", ".tar.gz": "gzip", ".tar.bz2": "bzip2", ".tar.zst": "zstd"}


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Pool(ToolSettings(processes=2), scratch=tmp_path / "scratch") as pool:
        yield pool


@pytest.fixture
def aip(tmp_path: Path) -> Path:
    folder = tmp_path / "-odd (name)"
    (folder / "data" / "objects" / "empty").mkdir(parents=True)
    (folder / "bagit.txt").write_text("BagIt-Version: 1.0\n")
    (folder / "data" / "objects" / "nothing").touch()
    (folder / "data" / "objects" / "@list é ü.bin").write_bytes(os.urandom(700_000))
    (folder / "data" / "objects" / "*").write_bytes(b"star")
    # 7-Zip would put filters of its own on sound and on programs.
    with wave.open(str(folder / "data" / "objects" / "sound.wav"), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(44_100)
        sound.writeframes(bytes(range(256)) * 700)
    (folder / "data" / "objects" / "program").write_bytes(Path("/bin/true").read_bytes())
    (folder / "data" / "objects" / ("long " * 40)).write_bytes(b"x" * 3000)
    return folder


def expected(folder: Path) -> set[Member]:
    return {
        Member(
            path=str(path.relative_to(folder.parent)),
            size_bytes=path.stat().st_size,
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


async def read(packed: Path) -> set[Member]:
    return {member async for window in digests(packed, DigestAlgorithm.SHA256, window=2) for member in window}


def need(algorithm: CompressionAlgorithm) -> None:
    if not shutil.which(PROGRAM[suffix(algorithm)]):
        pytest.skip(f"{PROGRAM[suffix(algorithm)]} is not installed")


@pytest.mark.parametrize("algorithm", ALL)
async def test_what_is_packed_is_read_back_byte_for_byte(
    pool: Pool, aip: Path, tmp_path: Path, algorithm: CompressionAlgorithm
) -> None:
    need(algorithm)
    into = tmp_path / f"out{suffix(algorithm)}"
    into.write_bytes(b"from an earlier try")

    packed = await pack(pool, aip, into, algorithm, 1)

    assert expected(aip) == await read(into)
    assert packed.path == into
    assert packed.detail.startswith(f'program="{packed.program}"; version="{packed.version}"')
    assert packed.version[0].isdigit()
    assert {aip.name, into.name, "scratch"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("algorithm", [one for one in ALL if suffix(one) != ".7z"])
async def test_the_same_folder_gives_the_same_tar(
    pool: Pool, aip: Path, tmp_path: Path, algorithm: CompressionAlgorithm
) -> None:
    need(algorithm)
    first = await pack(pool, aip, tmp_path / "one", algorithm, 3)
    for path in aip.rglob("*"):
        if path.is_file():
            path.read_bytes()
    second = await pack(pool, aip, tmp_path / "two", algorithm, 3)

    assert first.path.read_bytes() == second.path.read_bytes()


async def test_the_detail_says_which_programs_ran(pool: Pool, aip: Path, tmp_path: Path) -> None:
    packed = await pack(pool, aip, tmp_path / "a.tar.gz", CompressionAlgorithm.TAR_GZIP, 1)

    compressor = "pigz" if pool.which("pigz") else "gzip"
    assert f'program="tar"; version="{packed.version}"; algorithm="gzip"; compressor="{compressor} ' in packed.detail


async def test_a_folder_that_is_not_there_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        await pack(pool, tmp_path / "nowhere", tmp_path / "out.tar", CompressionAlgorithm.TAR, 1)

    assert "nowhere" in caught.value.stderr_tail
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


async def test_a_cancelled_packing_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "zeros").write_bytes(b"")
    os.truncate(folder / "zeros", 2**33)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await pack(pool, folder, tmp_path / "out.tar.gz", CompressionAlgorithm.TAR_GZIP, 9)

    assert {"large", "scratch"} == {path.name for path in tmp_path.iterdir()}
    assert pool.running == 0


async def test_a_damaged_package_is_an_error(pool: Pool, aip: Path, tmp_path: Path) -> None:
    packed = await pack(pool, aip, tmp_path / "a.tar.gz", CompressionAlgorithm.TAR_GZIP, 1)
    packed.path.write_bytes(packed.path.read_bytes()[:-20_000])

    with pytest.raises(ToolError, match="cannot be read") as caught:
        await read(packed.path)

    assert Code.TOOL_BAD_OUTPUT is caught.value.code


async def test_a_changed_byte_changes_a_digest_or_is_an_error(pool: Pool, aip: Path, tmp_path: Path) -> None:
    packed = await pack(pool, aip, tmp_path / "a.tar", CompressionAlgorithm.TAR, 1)
    data = bytearray(packed.path.read_bytes())
    data[len(data) // 2] ^= 1
    packed.path.write_bytes(data)

    assert expected(aip) != await read(packed.path)


async def test_a_link_in_a_package_is_an_error(pool: Pool, aip: Path, tmp_path: Path) -> None:
    (aip / "link").symlink_to("bagit.txt")
    packed = await pack(pool, aip, tmp_path / "a.tar", CompressionAlgorithm.TAR, 1)

    with pytest.raises(ToolError, match="neither a file nor a folder"):
        await read(packed.path)
