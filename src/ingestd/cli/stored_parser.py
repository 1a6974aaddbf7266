"""The options of what archival storage holds."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the actions of `aip` those on archival storage."""

    def add(name: str, text: str, *, package: bool = True) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print as JSON, a line for each package or copy")
        if package:
            added.add_argument("package", metavar="UUID", help="the package's id")
            added.add_argument("--dip", action="store_true", help="the DIP of that id, not the AIP")
        added.add_argument("--location", metavar="NAME", help="only the copy on this location")
        return added

    add("list", "what archival storage holds, AIPs and DIPs", package=False)
    add("locate", "where the copies of a package are")
    fetched = add("fetch", "copy a package out of archival storage, and prove the copy")
    fetched.add_argument("--output", type=Path, metavar="DIR", help="a folder (default: the working folder)")
    copied = add("replicate", "store one more copy of a package on another location, proved as every other")
    copied.add_argument("--to", required=True, metavar="NAME", help="a location of the settings")
    removed = add("delete", "remove a package from archival storage, every copy or one; a record of it stays")
    removed.add_argument("--reason", required=True, help="why; kept in the record")


def add_audit(command: argparse.ArgumentParser) -> None:
    """Give the parser of `audit` its options."""
    command.add_argument(
        "--location", action="append", default=[], metavar="NAME", help="only this location, repeatable"
    )
    command.add_argument("--every", type=_seconds, default=0, metavar="TIME", help="again and again: 30d, 12h, 90m")
    command.add_argument("--rate", type=_bytes, default=0, metavar="SIZE", help="bytes a second, on average: 20M")
    command.add_argument("--repair", action="store_true", help="replace a damaged copy by a good one, if there is one")
    command.add_argument("--json", action="store_true", help="print a line of JSON for each copy")


def _seconds(text: str) -> float:
    return _number(text, _UNITS)


def _bytes(text: str) -> float:
    return _number(text, _SIZES)


def _number(text: str, units: dict[str, int]) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-z]?)", text.lower())
    if found is None or found[2] not in units:
        raise argparse.ArgumentTypeError(f"not a number with one of the units {', '.join(filter(None, units))}")
    return float(found[1]) * units[found[2]]
