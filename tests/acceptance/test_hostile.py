"""Hostile content through whole ingests, in one service that must outlive it all: kept whole, or refused with a reason."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

import ingestd
from ingestd.config import Settings
from ingestd.ingest import Ingest
from ingestd.messages import EventData, Outcome
from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.program import NO_DERIVATIVES

pytestmark = [pytest.mark.tool, pytest.mark.asyncio(loop_scope="module")]

SECRET = "t0p-s3cr3t-of-this-server"
NAMES = (
    "-rf", "--output=x", "a\nb", "a\x01\x1b[31mb", "\u00e9.txt", "e\u0301.txt", "A.TXT", "a.txt", "x" * 255,
    os.fsdecode(b"n\xff\xfe.jpg"), "$(touch pwned)", "`id`;'\"", "trail. ", "%SIPUUID%.txt", "%inputFile%",
    "\u202egpj.exe", "&lt;<b>]]>.xml", "/".join(["d"] * 100) + "/f", "-", "~root", "CON", "a\\b",
)  # fmt: skip
BOMB = "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
DOCUMENTS = {
    "bomb": f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{BOMB}]><ROOT>&i;</ROOT>',
    "file": '<!DOCTYPE x [<!ENTITY s SYSTEM "SECRET">]><ROOT>&s;</ROOT>',
    "parameter": '<!DOCTYPE x [<!ENTITY % p SYSTEM "SECRET"> %p;]><ROOT>x</ROOT>',
    "dtd": '<!DOCTYPE x SYSTEM "SECRET"><ROOT>x</ROOT>',
}
READ_WITH_THE_PACKAGE = {
    "metadata/premis.xml": "premis",
    "metadata/transfer_metadata.xml": "fields",
    "metadata/a.xml": "dc",
    "metadata/submissionDocumentation/mets.xml": "mets",
    "mets.xml": "mets",
    "object.xml": "x",
    "p.svg": "svg",
}
READ_BEFORE = {"metadata/mets_structmap.xml": "mets", "processingMCP.xml": "processingMCP"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Ingest, Path]]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = Settings(
        data_dir=folder / "data",
        clamav={"scanner": "off"},
        processing={**NO_DERIVATIVES, "validate_formats": False, "aip_compression_algorithm": "tar"},
    )
    async with ingestd.open(settings) as ingest:
        yield ingest, folder


def tar(path: Path, members: Sequence[tuple[str, bytes, str]]) -> Path:
    with tarfile.open(path, "w", errors="surrogateescape") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            content = os.fsencode(name) if kind == tarfile.REGTYPE else b""
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


async def test_every_name_is_kept_and_every_byte(service: tuple[Ingest, Path], tmp_path: Path) -> None:
    ingest, _ = service
    source = tar(tmp_path / "names.tar", [(name, tarfile.REGTYPE, "") for name in NAMES])

    result = await ingest.preserve(source)

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    assert result.counts is not None
    assert len(NAMES) == result.counts.originals
    aip = open_aip(stored_path(result.model_dump(mode="json")), tmp_path / "opened")
    contents = sorted((aip.folder / "data" / path).read_bytes() for path in aip.of("original"))
    assert sorted(map(os.fsencode, NAMES)) == contents


@pytest.mark.parametrize(
    ("name", "kind", "link", "code"),
    [
        ("../../evil", tarfile.REGTYPE, "", "content.path_traversal"),
        ("/etc/evil", tarfile.REGTYPE, "", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "/etc/passwd", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "../../x", "content.path_traversal"),
        ("link", tarfile.LNKTYPE, "/etc/passwd", "content.path_traversal"),
        ("link", tarfile.SYMTYPE, "link", "content.structure_invalid"),
        ("device", tarfile.CHRTYPE, "", "content.structure_invalid"),
        ("device", tarfile.BLKTYPE, "", "content.structure_invalid"),
        ("fifo", tarfile.FIFOTYPE, "", "content.structure_invalid"),
    ],
)
async def test_what_leads_out_or_is_no_file_is_refused_and_named(
    service: tuple[Ingest, Path], tmp_path: Path, name: str, kind: bytes, link: str, code: str
) -> None:
    ingest, folder = service
    before = stored_below(folder / "data" / "aips")

    result = await ingest.preserve(tar(tmp_path / "a.tar", [("ok", tarfile.REGTYPE, ""), (name, kind, link)]))

    assert Outcome.FAILED is result.outcome
    assert result.error is not None
    assert code == result.error.code
    assert Path(name).name in str([violation.model_dump() for violation in result.error.violations])
    assert before == stored_below(folder / "data" / "aips")


def written(folder: Path, paths: dict[str, str], document: str) -> Path:
    secret = folder / "secret"
    secret.write_text(SECRET)
    source = folder / "source"
    for path, root in paths.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(document.replace("ROOT", root).replace("SECRET", secret.as_uri()))
    (source / "file.txt").write_text("x")
    (source / "metadata" / "source-metadata.csv").write_text("filename,metadata,type\nobjects/file.txt,a.xml,dc\n")
    return source


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_no_document_of_a_package_is_expanded_or_fetches_anything(
    service: tuple[Ingest, Path], tmp_path: Path, document: str
) -> None:
    ingest, folder = service

    result = await ingest.preserve(written(tmp_path, READ_WITH_THE_PACKAGE, DOCUMENTS[document]))

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    assert nowhere(result, folder)
    aip = stored_path(result.model_dump(mode="json"))
    assert aip.stat().st_size < 5_000_000


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_a_document_that_a_package_is_judged_by_rejects_it(
    service: tuple[Ingest, Path], tmp_path: Path, document: str
) -> None:
    ingest, folder = service
    source = written(tmp_path, {**READ_BEFORE, "metadata/a.xml": "dc"}, DOCUMENTS[document])

    result = await ingest.preserve(source)

    assert result.outcome in {Outcome.REJECTED, Outcome.FAILED}
    assert nowhere(result, folder)


def nowhere(result: EventData, folder: Path) -> bool:
    """Whether the secret is nowhere below the data folder, nor in what is told."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return SECRET not in result.model_dump_json() and not any(SECRET.encode() in path.read_bytes() for path in files)
