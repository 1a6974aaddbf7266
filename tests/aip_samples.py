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
PREMIS_2 = (
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


def mets_0(files: Sequence[Sample] = FILES) -> str:
    """A METS as Archivematica 0.7 and 0.8 wrote it: an amdSec's one digiprovMD, which `ADMID` names, wraps a whole
    `premis` of version 2.0; a file and what was made of it have the group G1; directories point to their files.
    """
    sections = "".join(
        f'<amdSec ID="amd-{_file_id(file)}"><digiprovMD ID="digiprov-{_file_id(file)}"><mdWrap MDTYPE="PREMIS"><xmlData>'
        f"<premis {PREMIS_2.replace('2.2', '2.0')}>{_object(file)}"
        f"{''.join(_event(file, *event) for event in file.events)}{_agent('0.8')}{_RIGHTS if file is LETTER else ''}"
        "</premis></xmlData></mdWrap></digiprovMD></amdSec>\n"
        for file in files
    )
    entries = {
        use: "".join(
            f'<file GROUPID="G{1 + (file in (PHOTO, COPY))}" ID="{_file_id(file)}" ADMID="digiprov-{_file_id(file)}">'
            f'<FLocat xlink:href="{file.path}" LOCTYPE="OTHER" OTHERLOCTYPE="SYSTEM"/></file>\n'
            for file in files
            if file.use == use
        )
        for use in dict.fromkeys(file.use for file in files)
    }
    groups = "".join(f'<fileGrp USE="{use}">\n{files}</fileGrp>\n' for use, files in entries.items())
    folders: dict[str, str] = {}
    for file in files:
        parent = str(Path(file.path).parent)
        folders[parent] = folders.get(parent, "") + f'<fptr FILEID="{_file_id(file)}"/>'
    inner = "".join(
        f'<div LABEL="{folder.removeprefix("objects/")}" TYPE="directory">{pointers}</div>'
        for folder, pointers in folders.items()
        if folder != "objects"
    )
    return (
        f'{_HEAD}<dmdSec ID="SIP-description"><mdWrap MDTYPE="DC"><xmlData><dublincore><title>Letters</title>'
        f"</dublincore></xmlData></mdWrap></dmdSec>{sections}<fileSec>{groups}</fileSec>\n"
        f'<structMap TYPE="physical"><div LABEL="{NAME}" TYPE="directory"><div LABEL="objects" TYPE="directory"'
        f' DMDID="SIP-description">{folders.get("objects", "")}{inner}</div></div></structMap></mets>\n'
    )


_RIGHTS = (
    "<rights><rightsStatement><rightsStatementIdentifier><rightsStatementIdentifierType>UUID"
    "</rightsStatementIdentifierType><rightsStatementIdentifierValue>r1</rightsStatementIdentifierValue>"
    "</rightsStatementIdentifier><rightsBasis>Copyright</rightsBasis><copyrightInformation><copyrightStatus>"
    "copyrighted</copyrightStatus><copyrightJurisdiction>ca</copyrightJurisdiction></copyrightInformation>"
    "<rightsGranted><act>disseminate</act><restriction>Disallow</restriction></rightsGranted></rightsStatement></rights>"
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
    events = "".join(_digiprov(f"{number}_{at}", "EVENT", _event(file, *event)) for at, event in enumerate(file.events))
    return (
        f'<amdSec ID="amdSec_{number}"><techMD ID="techMD_{number}"><mdWrap MDTYPE="PREMIS:OBJECT"><xmlData>'
        f"{_object(file)}</xmlData></mdWrap></techMD>{events}{_digiprov(f'{number}_a', 'AGENT', _agent('1.4'))}"
        "</amdSec>\n"
    )


def _agent(version: str) -> str:
    return (
        f"<agent {PREMIS_2}><agentIdentifier><agentIdentifierType>preservation system</agentIdentifierType>"
        f"<agentIdentifierValue>Archivematica-{version}</agentIdentifierValue></agentIdentifier>"
        "<agentName>Archivematica</agentName><agentType>software</agentType></agent>"
    )


def _object(file: Sample) -> str:
    relation = (
        "<relationship><relationshipType>derivation</relationshipType><relationshipSubType>has source"
        "</relationshipSubType><relatedObjectIdentification><relatedObjectIdentifierType>UUID"
        f"</relatedObjectIdentifierType><relatedObjectIdentifierValue>{file.source}</relatedObjectIdentifierValue>"
        "</relatedObjectIdentification></relationship>"
        if file.source
        else ""
    )
    return (
        f'<object {PREMIS_2} xsi:type="file"><objectIdentifier><objectIdentifierType>UUID</objectIdentifierType>'
        f"<objectIdentifierValue>{file.identifier}</objectIdentifierValue></objectIdentifier>"
        "<objectCharacteristics><compositionLevel>0</compositionLevel><fixity>"
        f"<messageDigestAlgorithm>sha256</messageDigestAlgorithm><messageDigest>{file.digest}</messageDigest></fixity>"
        f"<size>{len(file.content)}</size><format><formatDesignation><formatName>a format</formatName>"
        "</formatDesignation><formatRegistry><formatRegistryName>PRONOM</formatRegistryName>"
        f"<formatRegistryKey>{file.puid}</formatRegistryKey></formatRegistry></format></objectCharacteristics>"
        f"<originalName>%transferDirectory%{file.path}</originalName>{relation}</object>"
    )


def _event(file: Sample, kind: str, outcome: str) -> str:
    identifier = uuid.uuid5(uuid.UUID(file.identifier), kind)
    return (
        f"<event {PREMIS_2}><eventIdentifier><eventIdentifierType>UUID</eventIdentifierType><eventIdentifierValue>"
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
