"""Plain names for files whose own name a tool cannot be told, or would leak the server's folders with.

Some tools take a list of names line by line, others only UTF-8, others take `http:…` for an address. For such a file
a symbolic link with a plain name and the same extension stands in, and what the tool writes is set right again.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ingestd.oais import escape_name

_ODD = re.compile("[\x00-\x1f\x7f:\ud800-\udfff]")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """`path` is the file as it is; `told` is what a tool is told: the same, or a link to it."""

    path: Path
    told: Path

    @property
    def linked(self) -> bool:
        return self.told != self.path

    def restore(self, xml: str) -> str:
        """Put the file's own name, escaped as `oais.escape_name` does, where the tool wrote the link's."""
        if not self.linked:
            return xml
        name = _text(self.path.name)
        return xml.replace(self.told.name, name).replace(self.told.stem, _text(self.path.stem))

    def remove(self) -> None:
        if self.linked:
            self.told.unlink(missing_ok=True)


def alias(path: Path, folder: Path) -> Alias:
    """Make a link in `folder` if any part of the absolute `path` is odd; blocking, and to be removed after use."""
    if not _ODD.search(str(path)):
        return Alias(path=path, told=path)
    extension = path.suffix if _EXTENSION.fullmatch(path.suffix) else ""
    told = folder / f"{uuid.uuid4().hex}{extension}"
    told.symlink_to(path)
    return Alias(path=path, told=told)


def _text(name: str) -> str:
    return escape(escape_name(name), {"'": "&#39;", '"': "&quot;"})
