"""Which files have no copy of their own, since one mbox has all messages of their maildir."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ingestd.fpr.records import FormatVersion, Purpose
from ingestd.fpr.registry import Registry
from ingestd.metadata.mail import FOLDERS
from ingestd.oais import File, Package, TransferType

MAILDIR = "archivematica-maildir"
"""The registry's word for a folder of this kind, which no program identifies."""


def with_its_maildir(registry: Registry, package: Package, root: Path, file: File, purpose: Purpose) -> bool:
    """Whether a file is a message of a maildir that a rule makes one mbox of; recorded paths start from `root`."""
    if package.type is not TransferType.MAILDIR or PurePosixPath(file.original).parent.name not in FOLDERS:
        return False
    if not registry.rules(purpose, registry.find(FormatVersion, MAILDIR)):
        return False
    maildir = (root / file.path).parent.parent
    return all((maildir / name).is_dir() for name in FOLDERS)
