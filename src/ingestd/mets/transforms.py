"""What a METS says of how its file is packed: `transformFile`, as pointer files have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from ingestd.errors import Code, ContentError, Violation
from ingestd.mets.vocabulary import METS
from ingestd.tools.xml import RefusedXmlError, root_of

_POINTER_BYTES = 16 * 1024 * 1024
_MOST = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Transform:
    """One step that undoes the packing, e.g. `decompression` by `bzip2`, in the order `order`; `key` decrypts."""

    kind: str
    algorithm: str
    order: str
    key: str = ""


def read_transforms(path: Path) -> Sequence[Transform]:
    """Read the transformFile elements of a pointer file; blocks. Raises `ContentError`
    (`content.metadata_invalid`) if it is no XML, too large, or declares a document type; `OSError`.
    """
    if path.stat().st_size > _POINTER_BYTES:
        raise _unreadable(path, f"it is larger than {_POINTER_BYTES} bytes")
    try:
        with path.open("rb") as file:
            root_of(file)
            tree = etree.fromstring(file.read(), etree.XMLParser(resolve_entities=False, no_network=True))
    except (RefusedXmlError, etree.XMLSyntaxError) as error:
        raise _unreadable(path, str(error)) from error
    found = list(tree.iter(f"{{{METS}}}transformFile"))[:_MOST]
    return [
        Transform(
            kind=element.get("TRANSFORMTYPE", ""),
            algorithm=element.get("TRANSFORMALGORITHM", ""),
            order=element.get("TRANSFORMORDER", ""),
            key=element.get("TRANSFORMKEY", ""),
        )
        for element in found
    ]


def _unreadable(path: Path, why: str) -> ContentError:
    return ContentError(
        f"{path.name} cannot be read as a pointer file: {why}",
        code=Code.CONTENT_METADATA_INVALID,
        violations=(Violation(path=path.name, rule="mets.xml", actual=why),),
    )
