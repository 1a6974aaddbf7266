"""The actions of `ingestd aip` and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from ingestd.cli import stored_parser

_PATH = "the AIP: its folder, or its package (7z, zip, tar, tar.gz/bz2/xz/zst)"


def add_actions(command: argparse.ArgumentParser) -> None:
    """Give the parser of `aip` its actions."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print as JSON")
        return added

    inspected = add("inspect", "what is in an AIP: summary, formats, events, warnings, files")
    inspected.add_argument("path", type=Path, metavar="PATH", help=_PATH)
    inspected.add_argument("--files", type=int, default=100, metavar="N", help="list the first N files; -1: all (100)")
    verified = add("verify", "prove an AIP: bag, METS, PREMIS, every digest, every file both ways, the pointer file")
    verified.add_argument("path", type=Path, metavar="PATH|UUID", help=f"{_PATH}; or a UUID, for every stored copy")
    verified.add_argument("--dip", action="store_true", help="with a UUID: the DIP of that id")
    verified.add_argument("--location", metavar="NAME", help="with a UUID: only the copy on this location")
    verified.add_argument(
        "--pointer", type=Path, metavar="FILE", help="the pointer file (default: pointer.UUID.xml beside the package)"
    )
    extracted = add("extract", "copy one file out of an AIP, without unpacking the others, and prove it")
    extracted.add_argument("path", type=Path, metavar="PATH", help=_PATH)
    extracted.add_argument(
        "file", metavar="FILE", help="its path in the AIP, the name it was received with, or its UUID"
    )
    extracted.add_argument(
        "--output", metavar="FILE|DIR|-", help="a new file, a folder, or - for stdout (default: the working folder)"
    )
    stored_parser.add_actions(actions)
    compared = add("diff", "what is different between two AIPs, or two versions of one")
    compared.add_argument("before", type=Path, metavar="A", help=_PATH)
    compared.add_argument("after", type=Path, metavar="B", help="the other")
    reported = add("report", "one HTML page about an AIP: formats, sizes, events, a timeline, small images, files")
    reported.add_argument("path", type=Path, metavar="PATH", help=_PATH)
    reported.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a new file, or a folder (default: NAME-UUID.html in the working folder)",
    )
