"""`metadata/dataset.json`, a dataset as Dataverse's API gives it, and `metadata/agents.json`. Everything here blocks.

Read whole, since it is one object: at most 16 MiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lxml import etree

from ingestd.errors import ContentError, Violation
from ingestd.messages.values import unsound
from ingestd.metadata.xml import UnreadableError
from ingestd.premis import Agent, time_in

FILE = "metadata/dataset.json"
PLACES = (FILE, "objects/dataset.json")
"""Where the dataset's document may be in the transfer."""
AGENTS_FILE = "metadata/agents.json"
DOCUMENT_BYTES = 16 << 20
_CHARACTERS = 100_000
_DDI = "ddi:codebook:2_5"
_DDI_SCHEMA = "https://ddialliance.org/Specification/DDI-Codebook/2.5/XMLSchema/codebook.xsd"
_LOCATION = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_EXTENSIONS = {
    "comma separated values": ".csv",
    "tab-separated values": ".tsv",
    "ms excel spreadsheet": ".xlsx",
    "ms excel (xlsx)": ".xlsx",
    "r data": ".RData",
    "spss portable": ".por",
    "spss sav": ".sav",
    "spss binary": ".sav",
    "stata binary": ".dta",
    "stata 13 binary": ".dta",
    "stata 14 binary": ".dta",
    "stata 15 binary": ".dta",
}
"""Extensions of the formats in which tables are submitted, by Dataverse's labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFile:
    """One file of a dataset: its path within it, and the digest of what was submitted.

    Of a table, `path` is that of the `.tab` file that Dataverse made, and `submitted` is what the submitted file, which
    the digest is of, may be called.
    """

    number: int
    path: str
    algorithm: str
    digest: str
    restricted: bool
    submitted: Sequence[str] = ()

    @property
    def is_table(self) -> bool:
        return bool(self.submitted)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def bundles(self) -> Sequence[str]:
        """The folders of the transfer, or zips in it, that a table may be in with what Dataverse made of it."""
        folder = PurePosixPath("objects") / PurePosixPath(self.path).parent
        places = [folder / self.stem, folder / f"{self.stem}.zip", folder, PurePosixPath("objects") / self.stem]
        return [str(place) for place in dict.fromkeys(places)]

    @property
    def places(self) -> list[str]:
        """Where the file, or of a table the submitted one, may be in the transfer."""
        if not self.is_table:
            return [f"objects/{self.path}"]
        return [f"{folder}/{name}" for folder in self.bundles for name in self.submitted]

    @property
    def places_of_table(self) -> list[str]:
        """Where the `.tab` file may be."""
        return [f"{folder}/{PurePosixPath(self.path).name}" for folder in self.bundles]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A dataset: its persistent identifier (type, value), Dublin Core, DDI Codebook, files and publisher."""

    identifier: tuple[str, str]
    pairs: Sequence[tuple[str, str]]
    ddi: str
    files: Sequence[DatasetFile]
    agent: Agent
    released_at: datetime | None


def no_dataset() -> ContentError:
    """The error where a dataset was promised and none is."""
    violation = Violation(path=FILE, rule="dataverse", expected="dataset.json", actual="no such file")
    return ContentError(
        "this is no dataset of Dataverse",
        violations=(violation,),
        remediation=f"Put what Dataverse's API says of the dataset into {FILE}, or leave the `type` out.",
    )


def is_dataset(path: Path) -> bool:
    """Say whether a file is what Dataverse says of a dataset. Raises `OSError`."""
    try:
        _version(_loaded(path))
    except UnreadableError:
        return False
    return True


def read(path: Path) -> Dataset:
    """Read a dataset. Raises `UnreadableError`, with the place where that is known, and `OSError`."""
    data = _loaded(path)
    version = _version(data)
    fields = _fields(version)
    identifier = _identifier(data, version)
    publisher = _text(data.get("publisher"))
    url = _text(data.get("persistentUrl"))
    return Dataset(
        identifier=identifier,
        pairs=_dublin_core(data, version, fields, identifier),
        ddi=_codebook(data, version, fields, identifier),
        files=[_file(number, one) for number, one in enumerate(_objects(version.get("files"), "files"), 1)],
        agent=Agent(
            identifier_type="URI" if url else "local",
            identifier=url or publisher or "Dataverse",
            name=publisher or "Dataverse",
            type="organization",
        ),
        released_at=time_in(_text(version.get("releaseTime") or version.get("createTime"))),
    )


def agents(path: Path) -> Sequence[Agent]:
    """Read `agents.json`. Raises `UnreadableError` and `OSError`."""
    listed = _loaded(path).get("agents")
    found = []
    for number, one in enumerate(_objects(listed, "agents"), 1):
        words = [_text(one.get(f"agent{name}")) for name in ("IdentifierType", "IdentifierValue", "Name", "Type")]
        if not all(words):
            raise UnreadableError(f"agent {number} has not all of its identifier's type and value, its name and type")
        found.append(Agent(identifier_type=words[0], identifier=words[1], name=words[2], type=words[3]))
    return found


def _loaded(path: Path) -> Mapping[str, Any]:
    """The object that a file is, or that the API wrapped (`data`)."""
    size = path.stat().st_size
    if size > DOCUMENT_BYTES:
        raise UnreadableError(f"{size} bytes; the largest document that is read has {DOCUMENT_BYTES}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UnreadableError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is no JSON in UTF-8: {error}") from error
    if found := unsound(value):
        raise UnreadableError(f"{found.path[:200]}: {found.rule}: {found.expected}")
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        value = value["data"]
    if not isinstance(value, dict):
        raise UnreadableError("it is JSON, but no object")
    return value


def _version(data: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("latestVersion", "datasetVersion"):
        if isinstance(data.get(name), dict):
            data = data[name]
            break
    if not isinstance(data.get("metadataBlocks"), dict) or not isinstance(data.get("files"), list):
        raise UnreadableError("it has no latestVersion (or datasetVersion) with metadataBlocks and files")
    return data


def _objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UnreadableError(f"{name} is no list of objects")
    return value


def _text(value: Any) -> str:
    """A text or number as a text that XML can hold."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return " ".join(_UNFIT.sub("\ufffd", str(value)).split())[:_CHARACTERS]


def _fields(version: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of the citation block, by their types' names."""
    block = version["metadataBlocks"].get("citation")
    listed = block.get("fields") if isinstance(block, dict) else None
    return {
        _text(one.get("typeName")): one.get("value")
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    }


def _texts(fields: Mapping[str, Any], name: str, part: str = "") -> list[str]:
    """The values of a field, or of one part of each of its values."""
    value = fields.get(name)
    several = value if isinstance(value, list) else [value]
    if part:
        inner = [one.get(part) for one in several if isinstance(one, dict)]
        several = [one.get("value") for one in inner if isinstance(one, dict)]
    return [text for text in map(_text, several) if text]


def _identifier(data: Mapping[str, Any], version: Mapping[str, Any]) -> tuple[str, str]:
    given = _text(version.get("datasetPersistentId")) or _text(data.get("persistentId"))
    protocol, _, value = given.partition(":")
    if not value:
        protocol = _text(data.get("protocol"))
        value = "/".join(filter(None, (_text(data.get("authority")), _text(data.get("identifier")))))
    names = {"doi": "DOI", "hdl": "Handle"}
    return (names.get(protocol, protocol or "local"), value) if value else ("", "")


def _rights(version: Mapping[str, Any]) -> list[str]:
    licence = version.get("license")
    if isinstance(licence, dict):
        licence = " ".join(filter(None, (_text(licence.get("name")), _text(licence.get("uri")))))
    return [text for text in (_text(licence), _text(version.get("termsOfUse"))) if text]


def _dublin_core(
    data: Mapping[str, Any], version: Mapping[str, Any], fields: Mapping[str, Any], identifier: tuple[str, str]
) -> list[tuple[str, str]]:
    kind, value = identifier
    said = {
        "title": _texts(fields, "title"),
        "creator": _texts(fields, "author", "authorName"),
        "subject": [*_texts(fields, "subject"), *_texts(fields, "keyword", "keywordValue")],
        "description": _texts(fields, "dsDescription", "dsDescriptionValue"),
        "publisher": [text] if (text := _text(data.get("publisher"))) else [],
        "date": [text] if (text := _text(data.get("publicationDate"))) else [],
        "type": ["Dataset"],
        "identifier": [f"{kind.lower()}:{value}"] if value else [],
        "rights": _rights(version),
    }
    return [(f"dc.{name}", text) for name, texts in said.items() for text in texts]


def _codebook(
    data: Mapping[str, Any], version: Mapping[str, Any], fields: Mapping[str, Any], identifier: tuple[str, str]
) -> str:
    """The dataset as DDI Codebook 2.5."""
    root = etree.Element(f"{{{_DDI}}}codeBook", nsmap={"ddi": _DDI}, version="2.5")
    root.set(_LOCATION, f"{_DDI} {_DDI_SCHEMA}")
    study = _in(root, "stdyDscr")
    citation = _in(study, "citation")
    titles = _in(citation, "titlStmt")
    _in(titles, "titl", " ".join(_texts(fields, "title")) or "untitled")
    if identifier[1]:
        _in(titles, "IDNo", identifier[1], agency=identifier[0])
    responsible = _in(citation, "rspStmt")
    for name in _texts(fields, "author", "authorName"):
        _in(responsible, "AuthEnty", name)
    distributed = _in(citation, "distStmt")
    for tag, key in (("distrbtr", "publisher"), ("distDate", "publicationDate")):
        if _text(data.get(key)):
            _in(distributed, tag, _text(data.get(key)))
    number = ".".join(filter(None, (_text(version.get(f"version{part}")) for part in ("Number", "MinorNumber"))))
    if number:
        _in(_in(citation, "verStmt"), "version", number, type=_text(version.get("versionState")))
    information = _in(study, "stdyInfo")
    subject = _in(information, "subject")
    for word in [*_texts(fields, "subject"), *_texts(fields, "keyword", "keywordValue")]:
        _in(subject, "keyword", word)
    for text in _texts(fields, "dsDescription", "dsDescriptionValue"):
        _in(information, "abstract", text)
    terms = _rights(version)
    if terms:
        use = _in(_in(study, "dataAccs"), "useStmt")
        for text in terms:
            _in(use, "restrctn", text)
    return etree.tostring(root, encoding="unicode")


def _in(parent: etree._Element, name: str, text: str = "", **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, f"{{{_DDI}}}{name}", {key: said for key, said in attributes.items() if said})
    element.text = text or None
    return element


def _file(number: int, one: Mapping[str, Any]) -> DatasetFile:
    held = one.get("dataFile")
    data: Mapping[str, Any] = held if isinstance(held, dict) else {}
    label = one.get("label") or data.get("filename")
    if not isinstance(label, str) or not label:
        raise UnreadableError(f"file {number} has neither a label nor a filename")
    folder = one.get("directoryLabel")
    path = f"{folder}/{label}" if isinstance(folder, str) and folder else label
    checksum = data.get("checksum")
    said = checksum if isinstance(checksum, dict) else {"type": "MD5", "value": data.get("md5")}
    return DatasetFile(
        number=number,
        path=path,
        algorithm=_text(said.get("type")),
        digest=_text(said.get("value")).lower(),
        restricted=one.get("restricted") is True,
        submitted=_submitted(label, data),
    )


def _submitted(label: str, data: Mapping[str, Any]) -> Sequence[str]:
    """What the submitted file of a table may be called; nothing for what is no table."""
    kind = _text(data.get("originalFormatLabel")).lower()
    if not label.endswith(".tab") or not (kind or data.get("originalFileFormat")):
        return ()
    given = data.get("originalFileName")
    names = [given] if isinstance(given, str) and given else []
    extension = _EXTENSIONS.get(kind)
    stem = label.removesuffix(".tab")
    return tuple(names + [f"{stem}{one}" for one in ([extension] if extension else sorted({*_EXTENSIONS.values()}))])
