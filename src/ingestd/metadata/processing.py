"""`processingMCP.xml`, Archivematica's answers to its decisions, read as processing options.

What each answer means is in `data/processing.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ingestd.metadata import xml

_NOT_DONE = "is not done here, or not known"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The options that a file asks for, and what of it cannot be followed, in words."""

    options: Mapping[str, bool | int | str] = field(default_factory=dict)
    problems: Sequence[str] = ()


def read(path: Path) -> Choices:
    """Read the file. Where one decision is answered yes and no, yes is right: it does more.

    Raises `xml.UnreadableError` for what is no such file. Blocks.
    """
    document = xml.read(path)
    if document.root.tag != "processingMCP":
        raise xml.UnreadableError(f"it begins with <{document.root.tag}>, not with <processingMCP>")
    options: dict[str, bool | int | str] = {}
    problems: list[str] = []
    for choice in document.root.iter("preconfiguredChoice"):
        link, answer = ((choice.findtext(name) or "").strip() for name in ("appliesTo", "goToChain"))
        decision = decisions().get(link)
        if decision is None:
            problems.append(f"line {choice.sourceline}: the decision {link[:100] or '(none)'} is not known here")
        elif answer not in decision["answers"]:
            instead = f": {decision['instead']}" if "instead" in decision else ""
            problems.append(f"line {choice.sourceline}: {decision['name']}: {answer[:100]} {_NOT_DONE}{instead}")
        else:
            for name, value in decision["answers"][answer].items():
                options[name] = (options.get(name) or value) if isinstance(value, bool) else value
    return Choices(options=options, problems=problems)


@cache
def decisions() -> Mapping[str, Mapping[str, Any]]:
    """Archivematica's decisions by the identifiers of their links."""
    text = resources.files(__package__).joinpath("data/processing.toml").read_text(encoding="utf-8")
    return {link: decision for decision in tomllib.loads(text)["decision"] for link in decision["links"]}
