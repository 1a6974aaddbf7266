"""Derivatives: one new file that a command of the registry makes of a file, proved before it is moved to its place."""

from __future__ import annotations

from ingestd.derivatives.maildirs import MAILDIR, outermost, taken_for_mail, with_its_maildir
from ingestd.derivatives.making import Maker, rule_for
from ingestd.derivatives.records import (
    FAILED,
    MANUAL,
    STEM_CHARACTERS,
    Made,
    NotMade,
    Order,
    Recorded,
    created,
    recorded,
    rule_uses,
)
from ingestd.derivatives.renewing import made_before, replaced

__all__ = [
    "FAILED",
    "MAILDIR",
    "MANUAL",
    "STEM_CHARACTERS",
    "Made",
    "Maker",
    "NotMade",
    "Order",
    "Recorded",
    "created",
    "made_before",
    "outermost",
    "recorded",
    "replaced",
    "rule_for",
    "rule_uses",
    "taken_for_mail",
    "with_its_maildir",
]
