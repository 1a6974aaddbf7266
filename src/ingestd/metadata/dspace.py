"""The METS of a DSpace export: `mets.xml` of an item, collection or community, in the form of DSpace's AIPs.

It says what the thing is (dmdSec: MODS, DIM), its handle and its parent's, what may be done with it (METSRIGHTS), and
which bitstreams it has: the bundle, checksum, name and rights of each. It is read as a stream. Everything here blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from ingestd.errors import ContentError, Violation
from ingestd.metadata.xml import UnreadableError
from ingestd.oais import NOWHERE
from ingestd.premis import Restriction, RightsBasis, RightsGranted, RightsStatement
from ingestd.tools.xml import RefusedXmlError, Root, root_of

NAME = "mets.xml"
DOCUMENT_BYTES = 64 << 20
"""Largest document that is read."""
_METS = "http://www.loc.gov/METS/"
_M = f"{{{_METS}}}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_LOCATION = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"
_DIM = "{http://www.dspace.org/xmlns/dspace/dim}field"
_RIGHTS = "{http://cosimo.stanford.edu/sdr/metsrights/}"
_HANDLES = ("hdl:", "info:hdl/", "https://hdl.handle.net/", "http://hdl.handle.net/")
_PUBLIC = "GENERAL PUBLIC"


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """One dmdSec: its MDTYPE, or, where that is OTHER, its OTHERMDTYPE; and the element in it.

    `standard`: it is an MDTYPE that METS knows, and says where its schema is, as Archivematica wants of those.
    """

    kind: str
    standard: bool
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """A file of the export that is a licence (rightsMD by mdRef): its kind, such as `DSpaceDepositLicense`."""

    kind: str
    href: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bitstream:
    """One file of the fileSec. `digest` is in lower case, `algorithm` as METS calls it (`MD5`, `SHA-1`), each empty
    where nothing is said. `name` is what the submitter called it. Bitstreams of one `group` belong together.
    """

    line: int
    href: str
    bundle: str
    group: str
    algorithm: str
    digest: str
    name: str
    rights: Sequence[RightsStatement]


@dataclass(kw_only=True, slots=True)
class Export:
    """What an item says of itself. `handle` and `parent` are handles without a scheme; `rights` are those of the whole.

    `pairs` are Dublin Core, `custom` words of the site's own, `documents` the files that said all this, where it was
    more than one: they are no bitstreams.
    """

    handle: str = ""
    parent: str = ""
    described: list[Described] = field(default_factory=list)
    rights: Sequence[RightsStatement] = ()
    licences: list[Licence] = field(default_factory=list)
    bitstreams: list[Bitstream] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    custom: list[tuple[str, str]] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)


def no_export() -> ContentError:
    """The error where an export was promised and none is."""
    expected = "the mets.xml of an item, or its dublin_core.xml and contents"
    violation = Violation(path=NAME, rule="dspace", expected=expected, actual="no such file")
    return ContentError(
        "this is no DSpace export",
        violations=(violation,),
        remediation="Send folders or zips of items, each with its mets.xml (DSpace: `packager -d -t AIP`) or in the "
        "Simple Archive Format (`export`), with the option extract_packages where they are zips; or leave the "
        "request's `type` out.",
    )


def is_export(path: Path) -> bool:
    """Say whether a file is a METS that DSpace wrote, by its root element. Raises `OSError`."""
    try:
        with path.open("rb") as file:
            said = _root(file).attributes
    except UnreadableError:
        return False
    return said.get("TYPE", "").startswith("DSpace ") or "dspace" in said.get("PROFILE", "").lower()


def read(path: Path) -> Export:
    """Read a document. Raises `UnreadableError` for what is no METS, not well formed, has a document type declaration
    or is too large, and `OSError`.
    """
    size = path.stat().st_size
    if size > DOCUMENT_BYTES:
        raise UnreadableError(f"{size} bytes; the largest mets.xml that is read has {DOCUMENT_BYTES}")
    reading = _Reading()
    with path.open("rb") as file:
        _root(file)
        try:
            for event, element in etree.iterparse(
                file,
                events=("start", "end"),
                tag=[f"{_M}{name}" for name in ("mets", "dmdSec", "amdSec", "fileGrp", "file", "structMap")],
                resolve_entities=False,
                no_network=True,
                load_dtd=False,
                remove_pis=True,
            ):
                reading.take(event, element)
        except etree.XMLSyntaxError as error:
            line, column = error.position
            raise UnreadableError(f"line {line}, column {column}: {error.msg}") from error
    return reading.export()


def _root(file: BinaryIO) -> Root:
    """The root element, which is METS's."""
    try:
        root = root_of(file)
    except RefusedXmlError as error:
        raise UnreadableError(f"line {error.line}: {error}") from error
    if (root.namespace, root.name) != (_METS, "mets"):
        said = f"{root.namespace} {root.name}".strip()[:200]
        raise UnreadableError(f"the root element is {said}, not {_METS} mets")
    return root


class _Reading:
    """A document on its way: what is done with is dropped, so that memory is that of what is kept."""

    def __init__(self) -> None:
        self._export = Export()
        self._rights: dict[str, list[RightsStatement]] = {}
        self._names: dict[str, str] = {}
        self._owned: set[str] = set()
        self._files: list[tuple[Bitstream, Sequence[str]]] = []
        self._bundles: list[str] = []
        self._same: dict[str, RightsStatement] = {}

    def take(self, event: str, element: etree._Element) -> None:
        name = etree.QName(element).localname
        if event == "start":
            if name == "fileGrp":
                self._bundles.append(element.get("USE", ""))
            elif name == "mets":
                self._export.handle = _handle(element.get("OBJID", ""))
            return
        if name == "fileGrp":
            self._bundles.pop()
        elif name != "mets":
            {"dmdSec": self._dmd, "amdSec": self._amd, "file": self._file, "structMap": self._map}[name](element)
            element.clear()

    def export(self) -> Export:
        whole = [said for amd, some in self._rights.items() if amd not in self._owned for said in some]
        self._export.rights = tuple(dict.fromkeys(whole))
        for file, amds in self._files:
            rights = tuple(dict.fromkeys(said for amd in amds for said in self._rights.get(amd, ())))
            name = next((self._names[amd] for amd in amds if amd in self._names), "")
            self._export.bitstreams.append(
                Bitstream(
                    line=file.line,
                    href=file.href,
                    bundle=file.bundle,
                    group=file.group,
                    algorithm=file.algorithm,
                    digest=file.digest,
                    name=name,
                    rights=rights,
                )
            )
        return self._export

    def _dmd(self, section: etree._Element) -> None:
        for wrap in section.iterfind(f"{_M}mdWrap"):
            kind, standard = _kind(wrap)
            for element in wrap.iterfind(f"{_M}xmlData/*"):
                located = element.get(_LOCATION) or element.getparent().get(_LOCATION)  # type: ignore[union-attr]
                if located:
                    element.set(_LOCATION, located)
                known = standard and bool(located)
                self._export.described.append(Described(kind=kind, standard=known, text=_text(element)))

    def _amd(self, section: etree._Element) -> None:
        amd = section.get("ID", "")
        for part in section.iterfind(f"{_M}rightsMD"):
            for reference in part.iterfind(f"{_M}mdRef"):
                self._export.licences.append(Licence(kind=_kind(reference)[0], href=reference.get(_HREF, "")))
            for declaration in part.iterfind(f"{_M}mdWrap/{_M}xmlData/{_RIGHTS}RightsDeclarationMD"):
                said = _statement(declaration)
                self._rights.setdefault(amd, []).append(self._same.setdefault(str(said), said))
        for named in section.iter("{*}originalName"):
            self._names[amd] = " ".join((named.text or "").split())
        for one in section.iter(_DIM):
            self._dim(one)

    def _dim(self, one: etree._Element) -> None:
        """A field of AIP-TECHMD: the handle of the thing and of what it is part of."""
        what = one.get("element"), one.get("qualifier")
        value = _handle((one.text or "").strip())
        if what == ("identifier", "uri") and value and not self._export.handle:
            self._export.handle = value
        elif what == ("relation", "isPartOf") and value and not self._export.parent:
            self._export.parent = value

    def _file(self, file: etree._Element) -> None:
        amds = file.get("ADMID", "").split()
        self._owned.update(amds)
        place = file.find(f"{_M}FLocat")
        bitstream = Bitstream(
            line=_line(file),
            href=place.get(_HREF, "") if place is not None else "",
            bundle=next((use for use in reversed(self._bundles) if use), ""),
            group=file.get("GROUPID", ""),
            algorithm=file.get("CHECKSUMTYPE", ""),
            digest=file.get("CHECKSUM", "").strip().lower(),
            name="",
            rights=(),
        )
        self._files.append((bitstream, amds))

    def _map(self, structure: etree._Element) -> None:
        if structure.get("LABEL") == "Parent" and not self._export.parent:
            pointers = structure.iter(f"{_M}mptr")
            self._export.parent = next((_handle(pointer.get(_HREF, "")) for pointer in pointers), "")


def _text(element: etree._Element) -> str:
    """An element as a document of its own: without METS's names, with any others that its values may use."""
    alone = copy.deepcopy(element)
    kept = [prefix for prefix, name in element.nsmap.items() if prefix and name != _METS]
    etree.cleanup_namespaces(alone, keep_ns_prefixes=kept)
    return etree.tostring(alone, encoding="unicode", with_tail=False)


def _line(element: etree._Element) -> int:
    line: Any = element.sourceline
    return int(line or 0)


def _kind(element: etree._Element) -> tuple[str, bool]:
    """The kind of metadata, and whether it is one of METS's own words."""
    kind = element.get("MDTYPE", "OTHER")
    return (element.get("OTHERMDTYPE", "OTHER"), False) if kind == "OTHER" else (kind, True)


def _handle(said: str) -> str:
    """A handle without its scheme; empty for what is none."""
    for scheme in _HANDLES:
        if said.startswith(scheme):
            return said.removeprefix(scheme)
    return said if "/" in said and ":" not in said else ""


def _statement(declaration: etree._Element) -> RightsStatement:
    """METSRIGHTS as PREMIS: each permission of each context is an act that is allowed, or not.

    What holds for a group or a person is conditional: the note says for whom.
    """
    category = declaration.get("RIGHTSCATEGORY", "").strip()
    licensed = category == "LICENSED"
    texts = [" ".join((one.text or "").split()) for one in declaration.iterfind(f"{_RIGHTS}RightsDeclaration")]
    acts = tuple(act for context in declaration.iterfind(f"{_RIGHTS}Context") for act in _acts(context))
    return RightsStatement(
        object=NOWHERE,
        basis=RightsBasis.LICENSE if licensed else RightsBasis.OTHER,
        other_basis="" if licensed else (category.lower() or "METSRIGHTS"),
        notes=("METSRIGHTS of DSpace", *(text for text in texts if text)),
        granted=acts,
    )


def _acts(context: etree._Element) -> Iterator[RightsGranted]:
    whom = " ".join(context.get("CONTEXTCLASS", "").replace("_", " ").split())
    names = [" ".join((one.text or "").split()) for one in context.iterfind(f"{_RIGHTS}UserName")]
    notes = [f"{whom}: {', '.join(names)}" if names else whom] if whom or names else []
    for permissions in context.iterfind(f"{_RIGHTS}Permissions"):
        for name, value in permissions.attrib.items():
            allowed = str(value).strip().lower() in {"true", "1"}
            if allowed and whom != _PUBLIC:
                restriction = Restriction.CONDITIONAL
            else:
                restriction = Restriction.ALLOW if allowed else Restriction.DISALLOW
            yield RightsGranted(
                act=str(name).lower(),
                restrictions=(restriction,),
                start=context.get("start-date", ""),
                end=context.get("end-date", ""),
                notes=tuple(notes),
            )
