"""XML that came with a transfer: read without entities and without a network, and held against a site's schemas.

Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from lxml import etree

from ingestd.errors import Code, SystemFault
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME

DOCUMENT_BYTES = 16 << 20
"""Largest document that is read."""
NAMESPACES = 1000
"""Most declarations of namespaces that hold at one place: libxml2 looks through them for each name."""
LISTED = 20
"""How many faults of a document are told."""
PROGRAM = "lxml"
VERSION = etree.__version__
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


class UnreadableError(ValueError):
    """A document that is not read; the message says why and, where that is known, at which line and column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document that was read. `text` is its root element, without what stands before and after."""

    root: etree._Element
    text: str

    def keys(self, kind: str) -> Sequence[str]:
        """What a schema may be set for, most particular first: the type that the submitter gives it, the schemas that
        the document names, its namespace, its root's name.
        """
        name = etree.QName(self.root)
        located = [
            *self.root.get(f"{_XSI}noNamespaceSchemaLocation", "").split(),
            *self.root.get(f"{_XSI}schemaLocation", "").split()[1::2],
        ]
        keys = [kind, *located, name.namespace or "", name.localname]
        return [key for key in dict.fromkeys(keys) if key]


def read(path: Path) -> Document:
    """Read a document. Raises `UnreadableError` for what is not well formed, declares entities or is too large, and
    `OSError`.
    """
    size = path.stat().st_size
    if size > DOCUMENT_BYTES:
        raise UnreadableError(f"{size} bytes; the largest document that is read has {DOCUMENT_BYTES}")
    raw = path.read_bytes()
    _refuse_bombs(raw)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True)
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise UnreadableError(f"line {line}, column {column}: {error.msg}") from error
    etree.cleanup_namespaces(root, keep_ns_prefixes=[prefix for prefix in root.nsmap if prefix])
    return Document(root=root, text=etree.tostring(root, encoding="unicode", with_tail=False))


def _refuse_bombs(raw: bytes) -> None:
    parser = expat.ParserCreate(namespace_separator=" ")
    in_scope = 0

    def refuse(name: str, *_: object) -> None:
        raise UnreadableError(f"line {parser.CurrentLineNumber}: it declares the entity {name[:100]}")

    def declared(*_: object) -> None:
        nonlocal in_scope
        in_scope += 1
        if in_scope > NAMESPACES:
            raise UnreadableError(f"line {parser.CurrentLineNumber}: more than {NAMESPACES} namespaces")

    def undeclared(*_: object) -> None:
        nonlocal in_scope
        in_scope -= 1

    parser.EntityDeclHandler = refuse
    parser.StartNamespaceDeclHandler = declared
    parser.EndNamespaceDeclHandler = undeclared
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise UnreadableError(
            f"line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}"
        ) from error
    except (LookupError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"its encoding cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a schema says of a document: its file's name, its kind, and what is wrong (`line 3: …`)."""

    schema: str
    kind: str
    faults: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A document, what a schema says of it, and why it is not to be used as it is; empty where it is."""

    problem: str
    document: Document | None = None
    verdict: Verdict | None = None


class Schemas:
    """A site's schemas by key (`Document.keys`), each read once. An empty path: nothing is to be held against it."""

    def __init__(self, paths: Mapping[str, Path | None]) -> None:
        self._paths = paths
        self._read: dict[Path, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._paths)

    def judged(self, path: Path, kind: str) -> Judged:
        """Read a document of a type and hold it against its schema. Raises `OSError`, and what `judge` raises."""
        try:
            document = read(path)
        except UnreadableError as error:
            return Judged(problem=f"the document cannot be read: {error}")
        key = self.key_of(document, kind)
        if key is None and self:
            known = ", ".join(document.keys(kind))
            return Judged(problem=f"no schema is set for any of {known}", document=document)
        verdict = self.judge(document, key) if key is not None else None
        faults = "; ".join(verdict.faults) if verdict else ""
        problem = f"the document is not valid by {verdict.schema}: {faults}" if verdict and faults else ""
        return Judged(problem=problem, document=document, verdict=verdict)

    def key_of(self, document: Document, kind: str) -> str | None:
        """The key under which something is set for a document; None if nothing is."""
        return next((key for key in document.keys(kind) if key in self._paths), None)

    def judge(self, document: Document, key: str) -> Verdict | None:
        """Hold a document against what is set for a key; None where nothing is to be held against it.

        Raises `SystemFault` (`system.configuration`) for a schema that cannot be read.
        """
        path = self._paths[key]
        if path is None:
            return None
        with ONE_SCHEMA_AT_A_TIME:
            schema = self._schema(path)
            valid = schema.validate(document.root)
            faults = (
                [] if valid else [f"line {entry.line}: {entry.message}" for entry in list(schema.error_log)[:LISTED]]
            )
        return Verdict(schema=path.name, kind=_kind(path), faults=faults or ([] if valid else ["not valid"]))

    def _schema(self, path: Path) -> Any:
        if path not in self._read:
            try:
                self._read[path] = _READERS[_kind(path)](path)
            except (OSError, etree.LxmlError) as error:
                raise SystemFault(
                    f"the schema {path.name} cannot be read: {error}", code=Code.SYSTEM_CONFIGURATION
                ) from error
        return self._read[path]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in _READERS else "xsd"


class _Beside(etree.Resolver):
    """Gives what a schema includes from the network by the same name from its own folder; nothing else is fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def resolve(self, system_url: str, public_id: str, context: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        beside = self._folder / system_url.rpartition("/")[2]
        if "://" in system_url and not system_url.startswith("file:") and beside.is_file():
            return self.resolve_filename(str(beside), context)  # type: ignore[attr-defined]
        return None


def _tree(path: Path) -> etree._ElementTree:
    parser = etree.XMLParser(no_network=True, resolve_entities=False)
    parser.resolvers.add(_Beside(path.parent))
    return etree.parse(str(path), parser)


def _xsd(path: Path) -> Any:
    return etree.XMLSchema(_tree(path))


def _rng(path: Path) -> Any:
    return etree.RelaxNG(_tree(path))


def _dtd(path: Path) -> Any:
    with path.open("rb") as file:
        return etree.DTD(file)


_READERS = {"xsd": _xsd, "rng": _rng, "dtd": _dtd}


_DUBLIN_CORE = {"http://purl.org/dc/elements/1.1/": "dc", "http://purl.org/dc/terms/": "dcterms", "": "dc"}


def dublin_core(document: Document) -> tuple[Sequence[tuple[str, str]], Sequence[str]]:
    """Read Dublin Core as (element, value), `dc.title`; and name what that leaves out.

    The elements stand in any element, `dublincore` mostly, with Dublin Core's namespaces or with none.
    """
    pairs: list[tuple[str, str]] = []
    lost: list[str] = []
    for element in document.root.iterchildren(tag=etree.Element):
        name = etree.QName(element)
        prefix = _DUBLIN_CORE.get(name.namespace or "")
        value = " ".join("".join(map(str, element.itertext())).split())
        if prefix is None or len(element) or element.attrib:
            lost.append(name.localname)
        if prefix is not None and value:
            pairs.append((f"{prefix}.{name.localname}", value))
    return pairs, list(dict.fromkeys(lost))[:LISTED]
