"""AIPs as others wrote them, made by hand: Archivematica 0.x and 1.x with PREMIS 2, and how any AIP is packed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AIP_ID = "6f3c4ac1-2f1b-4d33-9a0c-5f4b6f0e7c11"
NAME = f"letters-{AIP_ID}"
TRANSFER = "transfer-letters-0b9f2f1e-8c1d-4a53-9f5e-6a2f6d0c7b11"

_HEAD = """<?xml version="1.0" encoding="ASCII"?>
<mets xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.loc.gov/METS/ http://www.loc.gov/standards/mets/version18/mets.xsd">
  <metsHdr CREATEDATE="2012-05-06T07:08:09"/>
"""
_PREMIS_2 = (
    'xmlns="info:lc/xmlns/premis-v2" version="2.2" xsi:schemaLocation="info:lc/xmlns/premis-v2 '
    'http://www.loc.gov/standards/premis/v2/premis-v2-2.xsd"'
)


@dataclass(kw_only=True)
class Sample:
    """One file of an AIP of Archivematica's: its path below `data/`."""

    path: str
    content: bytes
    use: str = "original"
    puid: str = "x-fmt/111"
    events: Sequence[tuple[str, str]] = (("ingestion", ""), ("fixity check", "Pass"))
    source: str = ""
    at: str = "2012-05-06T07:08:09"
    digest: str = ""
    identifier: str = field(default="")

    def __post_init__(self) -> None:
        self.identifier = self.identifier or str(uuid.uuid5(uuid.NAMESPACE_URL, self.path))
        self.digest = self.digest or hashlib.sha256(self.content).hexdigest()


LETTER = Sample(path="objects/letter.txt", content=b"Dear Zoe,\n")
PHOTO = Sample(path="objects/photos/tower.jpg", content=b"\xff\xd8\xff\xe0 not much of a tower", puid="fmt/43")
COPY = Sample(
    path="objects/photos/tower-aa0000aa-0000-4000-8000-00000000000a.tif",
    content=b"II*\0 a tower",
    use="preservation",
    puid="fmt/353",
    source=PHOTO.identifier,
)
DEED = Sample(
    path=f"objects/submissionDocumentation/{TRANSFER}/METS.xml",
    content=b"<mets xmlns='http://www.loc.gov/METS/'/>",
    use="submissionDocumentation",
    puid="fmt/101",
)
FILES = (LETTER, PHOTO, COPY, DEED)


def mets(files: Sequence[Sample] = FILES, *, name: str = NAME) -> str:
    """A METS as Archivematica 1.0 to 1.5 wrote it: PREMIS 2, METS' own namespace the default."""
    sections = "".join(_amd_sec(number, file) for number, file in enumerate(files, start=1))
    groups = "".join(_group(use, files) for use in dict.fromkeys(file.use for file in files))
    items = "".join(
        f'<div LABEL="{Path(file.path).name}" TYPE="Item"><fptr FILEID="{_file_id(file)}"/></div>' for file in files
    )
    return (
        f"{_HEAD}{sections}  <fileSec>\n{groups}  </fileSec>\n"
        f'  <structMap TYPE="physical" LABEL="Archivematica default" ID="structMap_1"><div LABEL="{name}"'
        f' TYPE="Directory"><div LABEL="objects" TYPE="Directory">{items}</div></div></structMap>\n</mets>\n'
    )


def _file_id(file: Sample) -> str:
    return f"{Path(file.path).name}-{file.identifier}"


def _group(use: str, files: Sequence[Sample]) -> str:
    entries = "".join(
        f'<file GROUPID="Group-{file.source or file.identifier}" ID="{_file_id(file)}" ADMID="amdSec_{number}">'
        f'<FLocat xlink:href="{file.path}" LOCTYPE="OTHER" OTHERLOCTYPE="SYSTEM"/></file>\n'
        for number, file in enumerate(files, start=1)
        if file.use == use
    )
    return f'<fileGrp USE="{use}">\n{entries}</fileGrp>\n'


def _amd_sec(number: int, file: Sample) -> str:
    relation = (
        "<relationship><relationshipType>derivation</relationshipType><relationshipSubType>has source"
        "</relationshipSubType><relatedObjectIdentification><relatedObjectIdentifierType>UUID"
        f"</relatedObjectIdentifierType><relatedObjectIdentifierValue>{file.source}</relatedObjectIdentifierValue>"
        "</relatedObjectIdentification></relationship>"
        if file.source
        else ""
    )
    events = "".join(_digiprov(f"{number}_{at}", "EVENT", _event(file, *event)) for at, event in enumerate(file.events))
    agent = (
        f"<agent {_PREMIS_2}><agentIdentifier><agentIdentifierType>preservation system</agentIdentifierType>"
        "<agentIdentifierValue>Archivematica-1.4</agentIdentifierValue></agentIdentifier>"
        "<agentName>Archivematica</agentName><agentType>software</agentType></agent>"
    )
    return (
        f'<amdSec ID="amdSec_{number}"><techMD ID="techMD_{number}"><mdWrap MDTYPE="PREMIS:OBJECT"><xmlData>'
        f'<object {_PREMIS_2} xsi:type="file"><objectIdentifier><objectIdentifierType>UUID</objectIdentifierType>'
        f"<objectIdentifierValue>{file.identifier}</objectIdentifierValue></objectIdentifier>"
        "<objectCharacteristics><compositionLevel>0</compositionLevel><fixity>"
        f"<messageDigestAlgorithm>sha256</messageDigestAlgorithm><messageDigest>{file.digest}</messageDigest></fixity>"
        f"<size>{len(file.content)}</size><format><formatDesignation><formatName>a format</formatName>"
        "</formatDesignation><formatRegistry><formatRegistryName>PRONOM</formatRegistryName>"
        f"<formatRegistryKey>{file.puid}</formatRegistryKey></formatRegistry></format></objectCharacteristics>"
        f"<originalName>%transferDirectory%{file.path}</originalName>{relation}</object></xmlData></mdWrap></techMD>"
        f"{events}{_digiprov(f'{number}_a', 'AGENT', agent)}</amdSec>\n"
    )


def _event(file: Sample, kind: str, outcome: str) -> str:
    identifier = uuid.uuid5(uuid.UUID(file.identifier), kind)
    return (
        f"<event {_PREMIS_2}><eventIdentifier><eventIdentifierType>UUID</eventIdentifierType><eventIdentifierValue>"
        f"{identifier}</eventIdentifierValue></eventIdentifier><eventType>{kind}</eventType><eventDateTime>"
        f"{file.at}</eventDateTime><eventDetail>by hand</eventDetail><eventOutcomeInformation><eventOutcome>"
        f"{outcome}</eventOutcome></eventOutcomeInformation></event>"
    )


def _digiprov(number: str, kind: str, content: str) -> str:
    return (
        f'<digiprovMD ID="digiprovMD_{number}"><mdWrap MDTYPE="PREMIS:{kind}"><xmlData>{content}</xmlData></mdWrap>'
        "</digiprovMD>"
    )


def archivematica(
    into: Path,
    *,
    files: Sequence[Sample] = FILES,
    mets_name: str = f"METS.{AIP_ID}.xml",
    algorithm: str = "sha512",
    text: str | None = None,
) -> Path:
    """Lay an AIP of Archivematica out below `into`, a bag of BagIt 0.97; give its folder."""
    folder = into / NAME
    contents = {f"data/{file.path}": file.content for file in files}
    contents[f"data/{mets_name}"] = (mets(files) if text is None else text).encode()
    contents["data/logs/filenameChange.log"] = b"nothing\n"
    for path, content in contents.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    bag(folder, algorithm=algorithm)
    return folder


def bag(folder: Path, *, algorithm: str = "sha512", info: Mapping[str, str] | None = None) -> None:
    """Make a folder with `data/` in it a bag, as it is now, by hand."""
    payload = sorted(path for path in (folder / "data").rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in payload)
    tags = {"External-Identifier": AIP_ID, "Payload-Oxum": f"{size}.{len(payload)}", **(info or {})}
    (folder / "bagit.txt").write_text("BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n")
    (folder / "bag-info.txt").write_text("".join(f"{name}: {value}\n" for name, value in tags.items()))
    manifest = folder / f"manifest-{algorithm}.txt"
    manifest.write_bytes(b"".join(_line(folder, path, algorithm) for path in payload))
    tagged = [folder / "bag-info.txt", folder / "bagit.txt", manifest]
    (folder / f"tagmanifest-{algorithm}.txt").write_bytes(b"".join(_line(folder, path, algorithm) for path in tagged))


def _line(folder: Path, path: Path, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
    return f"{digest}  ".encode() + os.fsencode(path.relative_to(folder)) + b"\n"


def packed(folder: Path, form: str) -> Path:
    """Pack an AIP's folder beside it."""
    into = folder.parent / f"{folder.name}.{form}"
    if form == "7z":
        subprocess.run(["7z", "a", "-bd", "-y", into, folder.name], cwd=folder.parent, check=True, capture_output=True)
    elif form == "zip":
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
    else:
        how = {"tar": "", "tar.gz": "--gzip", "tar.bz2": "--bzip2", "tar.zst": "--zstd"}[form]
        options = [how] if how else []
        subprocess.run(["tar", *options, "-cf", into, folder.name], cwd=folder.parent, check=True)
    return into
