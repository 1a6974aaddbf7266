"""What became of a request that a transport brought."""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """What became of a request, and with it what is done with its message."""

    TAKEN = "taken"
    """Journalled now, new or to be gone on with."""
    IN_HAND = "in_hand"
    """This service is at work on it."""
    ELSEWHERE = "elsewhere"
    """Another worker is at work on it, or archival storage does not say: it comes back later."""
    DONE = "done"
    """It has its result, and the result is confirmed."""
    DONE_UNCONFIRMED = "done_unconfirmed"
    """It has its result, which is still to be published."""
    REJECTED = "rejected"
    """Refused; the result that says so is to be published."""
