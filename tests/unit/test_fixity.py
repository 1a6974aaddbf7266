import hashlib
import os
from pathlib import Path

import pytest

from ingestd.fixity import CHUNK_BYTES, digest_file, digest_many
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
