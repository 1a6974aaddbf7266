"""Corruptions of an AIP, each found and named."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ingestd
from ingestd import aip
from ingestd.config import Settings
from ingestd.errors import ContentError, Violation
from ingestd.storage.pairtree import pairtree as pairtree_of
from tests.acceptance.aips import stored_path
from tests.acceptance.corpora import small_transfer
from tests.acceptance.program import NO_DERIVATIVES
from tests.aip_samples import AIP_ID, LETTER, NAME, Sample, archivematica, bag, mets, mets_0, packed

pytestmark = [pytest.mark.tool]

HREF = r'xlink:href="(objects/[^"]+)"'
Corruption = Callable[[Path], None]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIP that was just made, as a folder."""
    import asyncio

    folder = tmp_path_factory.mktemp("ours")

    async def make() -> Path:
        settings = Settings(data_dir=folder / "data", processing=NO_DERIVATIVES)
        async with ingestd.open(settings) as ingest:
            result = await ingest.preserve(
                small_transfer(folder / "photographs"), processing={"aip_compression_algorithm": "uncompressed"}
            )
        return stored_path(result.model_dump(mode="json"))

    return asyncio.run(make())


def the_mets(folder: Path) -> Path:
    (path,) = (folder / "data").glob("METS.*.xml")
    return path


def an_object(folder: Path) -> Path:
    """A file that the METS names and that is not empty, whichever comes first."""
    found: list[str] = re.findall(HREF, the_mets(folder).read_text())
    paths = [folder / "data" / path for path in found]
    return next(path for path in paths if path.stat().st_size)


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.DOTALL)

    assert count == 1

    path.write_text(text)


def edit_mets(pattern: str, replacement: str) -> Corruption:
    """A METS that says something else, in a bag that is sound."""

    def corrupt(folder: Path) -> None:
        edit(the_mets(folder), pattern, replacement)
        bag(folder, algorithm="sha256")

    return corrupt


def flip_a_byte(folder: Path) -> None:
    path = an_object(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_a_file(folder: Path) -> None:
    an_object(folder).unlink()


def add_a_file(folder: Path) -> None:
    (folder / "data/objects/stowaway.txt").write_text("here I am")


def change_a_manifest_line(folder: Path) -> None:
    edit(folder / "manifest-sha256.txt", r"\A[0-9a-f]{64}", "0" * 64)


def garble_a_manifest(folder: Path) -> None:
    edit(folder / "manifest-sha256.txt", r"\A[^\n]+", "../../etc/passwd")


def rename_a_file(folder: Path) -> None:
    path = an_object(folder)
    path.rename(path.with_name("renamed.bin"))


def change_the_oxum(folder: Path) -> None:
    edit(folder / "bag-info.txt", r"Payload-Oxum: \d+", "Payload-Oxum: 1")


def change_the_tag_manifest(folder: Path) -> None:
    edit(folder / "tagmanifest-sha256.txt", r"[0-9a-f]{64}  bagit", "0" * 64 + "  bagit")


def remove_the_declaration(folder: Path) -> None:
    (folder / "bagit.txt").unlink()


def remove_the_mets(folder: Path) -> None:
    the_mets(folder).unlink()


def truncate_the_mets(folder: Path) -> None:
    path = the_mets(folder)
    os.truncate(path, path.stat().st_size // 2)


def leave_something_to_fetch(folder: Path) -> None:
    (folder / "fetch.txt").write_text("https://example.org/a 1 data/objects/a\n")


def put_a_link(folder: Path) -> None:
    (folder / "data/objects/link").symlink_to("/etc/passwd")


CORRUPTIONS: dict[str, tuple[Corruption, str, str]] = {
    "a byte of an object flipped": (flip_a_byte, "rfc8493.3.valid", "data/objects/"),
    "a byte flipped, as the METS sees it": (flip_a_byte, "premis.1.5.2", "data/objects/"),
    "a file removed": (remove_a_file, "rfc8493.3.complete", "data/objects/"),
    "a file removed, as the METS sees it": (remove_a_file, "mets.fileSec", "data/objects/"),
    "a file added": (add_a_file, "rfc8493.3.complete", "data/objects/stowaway.txt"),
    "a file added, as the METS sees it": (add_a_file, "mets.fileSec", "data/objects/stowaway.txt"),
    "a manifest's digest changed": (change_a_manifest_line, "rfc8493.3.valid", "data/"),
    "a manifest's line garbled": (garble_a_manifest, "rfc8493.2.1.3", "manifest-sha256.txt:1"),
    "a file renamed": (rename_a_file, "rfc8493.3.complete", "renamed.bin"),
    "the number of bytes wrong": (change_the_oxum, "rfc8493.2.2.2", "bag-info.txt"),
    "the tag manifest wrong": (change_the_tag_manifest, "rfc8493.2.2.1", "bagit.txt"),
    "no declaration of a bag": (remove_the_declaration, "rfc8493.2.1.1", "bagit.txt"),
    "something left to fetch": (leave_something_to_fetch, "rfc8493.2.2.3", "fetch.txt"),
    "a link": (put_a_link, "package.entry", "data/objects/link"),
    "no METS": (remove_the_mets, "mets.present", ""),
    "the METS truncated": (truncate_the_mets, "mets.xml", "data/METS."),
    "a digest in the METS changed": (
        edit_mets(r"(<premis:messageDigest>)[0-9a-f]{8}", r"\g<1>00000000"),
        "premis.1.5.2",
        "data/objects/",
    ),
    "a size in the METS changed": (
        edit_mets(r"<premis:size>\d+", "<premis:size>7777"),
        "premis.1.5.3",
        "data/objects/",
    ),
    "an entry of the fileSec removed": (edit_mets(r"<mets:file .*?</mets:file>", ""), "mets.fileSec", "data/objects/"),
    "a reference to nothing": (edit_mets(r"<mets:file .*?</mets:file>", ""), "mets.id.dangling", "METS."),
    "an amdSec removed": (edit_mets(r"<mets:amdSec .*?</mets:amdSec>", ""), "mets.amdSec", "data/objects/"),
    "an event without a time": (
        edit_mets(r"<premis:eventDateTime>[^<]+", "<premis:eventDateTime>yesterday"),
        "premis.2.3",
        "data/objects/",
    ),
    "an event out of PREMIS' schema": (
        edit_mets(r"<premis:eventDateTime>[^<]+</premis:eventDateTime>", ""),
        "mets.xsd",
        "METS.",
    ),
    "a METS that leads out": (edit_mets(HREF, 'xlink:href="../../../etc/passwd"'), "mets.fileSec", "etc/passwd"),
    "an entity declared": (
        edit_mets("<mets:mets ", '<!DOCTYPE mets [<!ENTITY x SYSTEM "file:///etc/passwd">]><mets:mets '),
        "mets.xml",
        "data/METS.",
    ),
}


async def test_a_new_aip_is_valid_folder_or_packed(ours: Path, tmp_path: Path) -> None:
    folder = tmp_path / ours.name
    shutil.copytree(ours, folder)

    for path in (folder, packed(folder, "7z"), packed(folder, "tar.gz")):
        found = await aip.verify(path)

        assert ((), True) == (tuple(found.findings), found.valid)
        assert found.checked.digests > found.checked.mets_files > 0
        assert found.checked.events > 0


@pytest.mark.parametrize("form", ["folder", "7z", "zip", "tar", "tar.gz", "tar.bz2", "tar.zst"])
async def test_an_aip_of_archivematica_is_valid_however_it_is_packed(tmp_path: Path, form: str) -> None:
    folder = archivematica(tmp_path)

    found = await aip.verify(folder if form == "folder" else packed(folder, form))

    assert ((), True) == (tuple(found.findings), found.valid)
    assert 13 == found.checked.digests


async def test_an_aip_of_archivematica_0_8_is_valid_and_a_changed_byte_is_found(tmp_path: Path) -> None:
    folder = archivematica(tmp_path, text=mets_0())
    good = await aip.verify(folder)
    (folder / "data" / LETTER.path).write_bytes(b"Dear Zoa,\n")

    bad = await aip.verify(folder)

    assert ((), 13) == (tuple(good.findings), good.checked.digests)
    assert ("premis.1.5.2", f"data/{LETTER.path}") in {(finding.rule, finding.path) for finding in bad.findings}


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_a_corruption_is_found_and_named(ours: Path, tmp_path: Path, name: str) -> None:
    corrupt, rule, path = CORRUPTIONS[name]
    folder = tmp_path / ours.name
    shutil.copytree(ours, folder, symlinks=True)
    corrupt(folder)

    found = await aip.verify(folder)

    assert not found.valid
    assert [finding for finding in found.findings if finding.rule == rule and path in finding.path], found.findings


@pytest.mark.parametrize("form", ["7z", "zip", "tar", "tar.gz", "tar.bz2", "tar.zst"])
async def test_a_truncated_package_is_said_to_be_one(tmp_path: Path, form: str) -> None:
    noise = Sample(path="objects/noise.bin", content=os.urandom(200_000))
    path = packed(archivematica(tmp_path, files=[LETTER, noise]), form)
    os.truncate(path, path.stat().st_size - 60_000)

    found = await aip.verify(path)

    assert ("package.readable", path.name) == (found.findings[0].rule, found.findings[0].path)


@pytest.mark.parametrize("form", ["folder", "7z", "zip", "tar.gz"])
async def test_names_are_the_same_however_they_are_composed(tmp_path: Path, form: str) -> None:
    files = [Sample(path=f"objects/{name}.txt", content=name.encode()) for name in ("cafe\u0301", "na\u00efve")]
    text = mets(files).replace("ASCII", "UTF-8")
    folder = archivematica(tmp_path, files=files, text=text)

    found = await aip.verify(folder if form == "folder" else packed(folder, form))

    assert [] == list(found.findings)


@pytest.mark.parametrize("form", ["7z", "zip", "tar", "tar.gz"])
async def test_a_corruption_is_found_in_a_package_too(tmp_path: Path, form: str) -> None:
    folder = archivematica(tmp_path)
    (folder / "data" / LETTER.path).write_bytes(b"Dear Zoa,\n")

    found = await aip.verify(packed(folder, form))

    rules = {(finding.rule, finding.path) for finding in found.findings}
    assert {("rfc8493.3.valid", f"data/{LETTER.path}"), ("premis.1.5.2", f"data/{LETTER.path}")} == rules


def a_pointer(path: Path, *, digest: str, size: int, algorithm: str = "lzma") -> None:
    text = mets([Sample(path=path.name, content=b"", use="Archival Information Package", digest=digest)])
    text = text.replace("<size>0<", f"<size>{size}<")
    text = re.sub(r"<objectIdentifierValue>[^<]+", f"<objectIdentifierValue>{AIP_ID}", text)
    transform = f'<transformFile TRANSFORMTYPE="decompression" TRANSFORMORDER="1" TRANSFORMALGORITHM="{algorithm}"/>'
    path.with_name(f"pointer.{AIP_ID}.xml").write_text(text.replace("</file>", f"{transform}</file>"))


async def test_a_pointer_file_is_held_against_its_package(tmp_path: Path) -> None:
    path = packed(archivematica(tmp_path), "7z")
    size = path.stat().st_size
    right = hashlib.sha256(path.read_bytes()).hexdigest()

    a_pointer(path, digest=right, size=size)
    good = await aip.verify(path)
    a_pointer(path, digest="0" * 64, size=size + 1, algorithm="pbzip2")
    bad = await aip.verify(path)

    assert ((), f"pointer.{AIP_ID}.xml") == (tuple(good.findings), good.checked.pointer)
    assert [
        ("mets.transformFile", f"pointer.{AIP_ID}.xml"),
        ("premis.1.5.3", path.name),
        ("premis.1.5.2", path.name),
    ] == [(finding.rule, finding.path) for finding in bad.findings]


@pytest.mark.parametrize("place", ["pairtree", "pairtree/v2", "ocfl"])
async def test_a_pointer_file_belongs_to_an_aip_in_archival_storage(tmp_path: Path, place: str) -> None:
    lone = packed(archivematica(tmp_path), "7z")
    digest = hashlib.sha256(lone.read_bytes()).hexdigest()
    lone.with_name(f"{lone.name}.sha256").write_text(f"{digest}  {lone.name}\n")
    pairtree = pairtree_of(uuid.UUID(AIP_ID))
    folder = {"pairtree": pairtree, "pairtree/v2": f"{pairtree}/v2", "ocfl": "object/v1/content"}[place]
    stored = tmp_path / "store" / folder / lone.name
    stored.parent.mkdir(parents=True)
    shutil.copy(lone, stored)
    if place == "ocfl":
        (stored.parents[2] / "inventory.json").write_text("{}")
    else:
        shutil.copy(f"{lone}.sha256", f"{stored}.sha256")

    alone, kept = await aip.verify(lone), await aip.verify(stored)

    assert alone.valid
    assert any("no pointer file" in note for note in alone.notes)
    assert [("package.pointer", f"pointer.{AIP_ID}.xml")] == [(found.rule, found.path) for found in kept.findings]


@pytest.mark.parametrize("form", ["7z", "folder"])
async def test_an_aip_is_held_against_the_checksum_file_beside_it(tmp_path: Path, form: str) -> None:
    folder = archivematica(tmp_path)
    (folder / "tagmanifest-sha256.txt").write_text("")
    path = folder if form == "folder" else packed(folder, form)
    named = path.name if form == "7z" else f"{path.name}/tagmanifest-sha256.txt"
    digest = hashlib.sha256((tmp_path / named).read_bytes()).hexdigest()
    beside = path.with_name(f"{path.name}.sha256")
    told = {}
    for said in (f"{digest}  {named}\n", f"{'0' * 64}  {named}\n", f"{digest}  /etc/passwd\n"):
        beside.write_text(said)
        found = await aip.verify(path)
        told[said] = [(one.path, one.actual) for one in found.findings if one.rule == "package.checksum"]
        assert [beside.name] == list(found.checked.checksum_files)

    good, bad, other = told.values()
    assert [] == good
    assert [(named, f"sha256 {digest}")] == bad
    assert [(beside.name, f"{digest}  /etc/passwd")] == other


async def test_names_that_lead_out_of_a_package_are_findings_and_nothing_is_written(tmp_path: Path) -> None:
    folder = archivematica(tmp_path / "made")
    hostile_zip = packed(folder, "zip")
    with zipfile.ZipFile(hostile_zip, "a") as archive:
        archive.writestr("../escaped.txt", "out")
        archive.writestr(f"{NAME}/data/objects/../../../escaped.txt", "out")
    hostile_tar = packed(folder, "tar")
    with tarfile.open(hostile_tar, "a") as tar:
        for name in ("/etc/escaped.txt", "../escaped.txt", f"{NAME}/data/objects/a\udcff.txt"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo(f"{NAME}/data/objects/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    zipped = await aip.verify(hostile_zip)
    tarred = await aip.verify(hostile_tar)

    def entries(found: aip.Verification) -> list[str]:
        return [finding.path for finding in found.findings if finding.rule == "package.entry"]

    assert ["../escaped.txt", f"{NAME}/data/objects/../../../escaped.txt"] == entries(zipped)
    assert ["../escaped.txt", f"{NAME}/data/objects/link"] == [path for path in entries(tarred) if "etc" not in path]
    assert [finding for finding in tarred.findings if "a%FF.txt" in finding.path]
    assert not list(tmp_path.rglob("escaped.txt"))


async def test_two_files_of_one_name_are_a_finding(tmp_path: Path) -> None:
    path = packed(archivematica(tmp_path), "zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{NAME}/data/{LETTER.path}", b"another letter")

    found = await aip.verify(path)

    assert f"{NAME}/data/{LETTER.path}" in [finding.path for finding in found.findings]


async def test_what_is_encrypted_says_so(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.7z.gpg"
    path.write_bytes(b"\x85\x02\x0c\x03")

    with pytest.raises(ContentError, match="encrypted"):
        await aip.verify(path)


async def test_a_finding_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    folder = archivematica(tmp_path)
    (folder / "data" / LETTER.path).write_bytes(b"Dear Zoe,")

    found = await aip.verify(folder)

    expected = f"{len(LETTER.content)} bytes"
    assert (
        Violation(path=f"data/{LETTER.path}", rule="premis.1.5.3", expected=expected, actual="9 bytes")
        in found.findings
    )


def test_every_rule_is_explained() -> None:
    told = (Path(__file__).parents[2] / "docs/reading-aips.md").read_text()
    source = Path(aip.__file__).parent.glob("*.py")
    rules = {
        rule
        for path in source
        for rule in re.findall(r'"((?:rfc8493|premis|mets|package)\.[A-Za-z0-9.]+)"', path.read_text())
    }

    assert len(rules) > 15
    assert [] == sorted(rule for rule in rules if f"`{rule}`" not in told)


@pytest.mark.parametrize("form", ["folder", "tar"])
async def test_who_cancels_waits_for_no_large_file(tmp_path: Path, form: str) -> None:
    path = folder = archivematica(tmp_path)
    if form == "tar":
        path = packed(folder, "tar")
        large = tarfile.TarInfo(f"{folder.name}/data/objects/large")
        large.size = 8 << 30
        with tarfile.open(path, "a") as archive:
            archive.fileobj.write(large.tobuf())
            archive.offset += tarfile.BLOCKSIZE
        os.truncate(path, 9 << 30)  # a hole, which takes no room
    else:
        (folder / "data" / "objects" / "large").touch()
        os.truncate(folder / "data" / "objects" / "large", 8 << 30)
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await aip.verify(path)

    assert time.monotonic() - began < 5  # eight gigabytes take half a minute
