"""Which files have no copy of their own, since one mbox has all messages of their maildir."""

from __future__ import annotations

from glob import escape
from pathlib import Path, PurePosixPath

from ingestd.fpr.records import FormatVersion, Purpose
from ingestd.fpr.registry import Registry
from ingestd.metadata.mail import FOLDERS
from ingestd.oais import File, Package, TransferType

MAILDIR = "archivematica-maildir"
"""The registry's word for a folder of this kind, which no program identifies."""


def outermost(root: Path, path: PurePosixPath) -> str:
    """Of a folder and those it is in, the outermost that is a maildir; empty if none is. Blocks, for a moment."""
    folders = [folder for folder in (path, *path.parents) if str(folder) != "."]
    found = [folder for folder in folders if all((root / folder / name).is_dir() for name in FOLDERS)]
    return str(found[-1]) if found else ""


def taken_for_mail(package: Package, root: Path, maildir: str) -> bool:
    """Whether a folder that is a maildir is mail: in a transfer that is said to be, or by the mbox that lies beside it
    in an AIP that is taken up again.
    """
    if package.type is TransferType.MAILDIR:
        return True
    place = root / maildir
    beside = place if maildir == "objects" else place.parent
    return package.reingest is not None and any(beside.glob(f"{escape(place.name)}-*.mbox"))


def with_its_maildir(registry: Registry, package: Package, root: Path, file: File, purpose: Purpose) -> bool:
    """Whether a file is a message of a maildir that a rule makes one mbox of; recorded paths start from `root`."""
    if PurePosixPath(file.original).parent.name not in FOLDERS:
        return False
    if not registry.rules(purpose, registry.find(FormatVersion, MAILDIR)):
        return False
    maildir = outermost(root, PurePosixPath(file.path).parent.parent)
    return bool(maildir) and taken_for_mail(package, root, maildir)
