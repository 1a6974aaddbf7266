import hashlib
import os
from pathlib import Path

import pytest

from ingestd.errors import Code, SourceError
from ingestd.fixity import CHUNK_BYTES, copy_and_digest, digest_file, digest_many
from ingestd.premis import DigestAlgorithm

SHA256 = DigestAlgorithm.SHA256


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
async def test_every_algorithm_gives_the_digest_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)

    found = await digest_file(tmp_path / "a", DigestAlgorithm)

    assert {algorithm: hashlib.new(algorithm, data).hexdigest() for algorithm in DigestAlgorithm} == found


async def test_many_files_come_in_windows_and_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(7)]
    for path in paths:
        path.write_text(path.name)

    windows = [window async for window in digest_many(iter(paths), SHA256, window=3)]

    assert [len(window) for window in windows] == [3, 3, 1]
    assert [(path, hashlib.sha256(path.name.encode()).hexdigest()) for path in paths] == [
        pair for window in windows for pair in window
    ]


def test_a_copy_has_the_same_bytes_and_time_and_its_digest_is_theirs(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_BYTES + 5)
    (tmp_path / "a").write_bytes(data)
    os.utime(tmp_path / "a", ns=(1, 1_234_567_890_123_456_789))

    copied = copy_and_digest(tmp_path / "a", tmp_path / "b", SHA256, sync=True)

    assert data == (tmp_path / "b").read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (copied.digest, copied.size_bytes)
    assert 1_234_567_890_123_456_789 == copied.modified_ns == (tmp_path / "b").stat().st_mtime_ns


def test_an_open_descriptor_is_copied_and_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)

    assert copy_and_digest(descriptor, tmp_path / "b", SHA256).size_bytes == 3
    os.close(descriptor)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")

    with pytest.raises(OSError, match="symbolic link"):
        copy_and_digest(tmp_path / "link", tmp_path / "b", SHA256)

    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "a")  # type: ignore[operator]

    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        copy_and_digest(tmp_path / "a", tmp_path / "b", SHA256)

    assert not (tmp_path / "b").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")

    with pytest.raises(FileExistsError):
        copy_and_digest(tmp_path / "a", tmp_path / "b", SHA256)

    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_source_that_changes_while_it_is_read_is_an_error_and_leaves_no_copy(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"abcdef")
    descriptor = os.open(source, os.O_RDONLY)
    # To the reader it looks as if the file had been cut while it was read: what it reads is less than was there.
    os.lseek(descriptor, 3, os.SEEK_SET)

    with pytest.raises(SourceError, match="changed while it was read") as caught:
        copy_and_digest(descriptor, tmp_path / "b", SHA256)

    assert Code.SOURCE_CHANGED is caught.value.code
    assert not (tmp_path / "b").exists()
    os.close(descriptor)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0)

    with pytest.raises(SourceError) as caught:
        copy_and_digest(tmp_path / "a", tmp_path / "b", SHA256)

    assert Code.SOURCE_ACCESS_DENIED is caught.value.code
