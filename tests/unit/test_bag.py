from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from datetime import date
from pathlib import Path

import bagit
import pytest

from ingestd import bag
from ingestd.bag import Payload, read_manifest, write_tags
from ingestd.errors import Code, ContentError
from ingestd.premis import DigestAlgorithm

CONTENTS = {
    "METS.xml": b"<mets/>",
    "objects/a b.txt": b"1",
    "objects/100%.txt": b"22",
    "objects/%0A.txt": b"333",
    "objects/%250D": b"4444",
    "objects/line\nend": b"5",
    "objects/return\rend": b"6",
    "objects/é": b"7",
    "objects/d/ lead": b"",
}


async def make(folder: Path, contents: dict[str, bytes], algorithm: DigestAlgorithm, **info: Sequence[str]) -> bag.Bag:
    for name, content in contents.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    async def payload() -> AsyncIterator[list[Payload]]:
        for name, content in contents.items():
            digest = hashlib.new(algorithm, content).hexdigest()
            yield [Payload(path=name, digest=digest, size_bytes=len(content))]

    return await write_tags(folder, payload(), algorithm=algorithm, info=info, bagging_date=date(2026, 3, 4))


@pytest.mark.parametrize("algorithm", [DigestAlgorithm.SHA256, DigestAlgorithm.SHA512])
async def test_a_bag_is_valid_for_another_implementation(tmp_path: Path, algorithm: DigestAlgorithm) -> None:
    plain = {name: content for name, content in CONTENTS.items() if "%" not in name}
    made = await make(tmp_path, plain, algorithm)

    bag.validate(tmp_path)

    assert bagit.Bag(os.fspath(tmp_path)).has_oxum()
    assert made.files == len(plain)


async def test_the_tag_files_are_as_rfc_8493_has_them(tmp_path: Path) -> None:
    info = {"Source-Organization": ["A\nB"], "External-Identifier": ["1", "2"]}
    made = await make(tmp_path, {"objects/a": b"123", "objects/b": b"4"}, DigestAlgorithm.SHA256, **info)

    assert (tmp_path / "bagit.txt").read_bytes() == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    assert (tmp_path / "bag-info.txt").read_text().splitlines() == [
        "Bagging-Date: 2026-03-04",
        "External-Identifier: 1",
        "External-Identifier: 2",
        "Payload-Oxum: 4.2",
        "Source-Organization: A B",
    ]
    tags = dict(read_manifest(tmp_path / "tagmanifest-sha256.txt"))
    assert set(tags) == {"bag-info.txt", "bagit.txt", "manifest-sha256.txt"}
    for name, digest in tags.items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    tag_manifest = (tmp_path / "tagmanifest-sha256.txt").read_bytes()
    assert (2, 4, hashlib.sha256(tag_manifest).hexdigest()) == (made.files, made.size_bytes, made.digest)


async def test_line_ends_and_percent_signs_in_names_are_encoded_and_nothing_else(tmp_path: Path) -> None:
    await make(tmp_path, CONTENTS, DigestAlgorithm.SHA256)

    names = [line.split(b"  ", 1)[1] for line in (tmp_path / "manifest-sha256.txt").read_bytes().splitlines()]

    assert names == [
        b"data/METS.xml",
        b"data/objects/a b.txt",
        b"data/objects/100%25.txt",
        b"data/objects/%250A.txt",
        b"data/objects/%25250D",
        b"data/objects/line%0Aend",
        b"data/objects/return%0Dend",
        "data/objects/é".encode(),
        b"data/objects/d/ lead",
    ]


async def test_a_manifest_is_read_as_it_was_written_whatever_the_names(tmp_path: Path) -> None:
    odd = {os.fsdecode(raw): raw for raw in (b"\xff", b"a\n\r%", b"%0a", b"%%0D", b"  two")} | CONTENTS
    await make(tmp_path, odd, DigestAlgorithm.SHA256)

    assert {f"data/{name}": hashlib.sha256(content).hexdigest() for name, content in odd.items()} == dict(
        read_manifest(tmp_path / "manifest-sha256.txt")
    )


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
async def test_a_damaged_bag_is_not_valid(tmp_path: Path, damage: str) -> None:
    await make(tmp_path, {"objects/a": b"1", "objects/b": b"2"}, DigestAlgorithm.SHA256)
    victim = tmp_path / "data/objects/a"
    if damage == "remove":
        victim.unlink()
    else:
        (victim if damage == "change" else victim.with_name("c")).write_bytes(b"9")

    with pytest.raises(ContentError) as caught:
        bag.validate(tmp_path)

    assert caught.value.code is Code.CONTENT_BAG_INVALID


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError):
        bag.validate(tmp_path)
