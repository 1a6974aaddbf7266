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
    """Another worker is at work on it, or may have the room that this one lacks, or archival storage does not say: it
    comes back later.
    """
    ANSWERED = "answered"
    """A refusal, or a result that it already has, was put into the outbox for it."""
    DONE = "done"
    """It has its result, and nothing is to be said again."""
