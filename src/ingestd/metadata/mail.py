"""Messages of a maildir: their attachments. Everything here blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email._policybase import Policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesFeedParser
from email.policy import compat32
from pathlib import Path
from typing import Any, BinaryIO

from ingestd.errors import ContentError, Violation
from ingestd.oais import escape_name

FOLDERS = ("cur", "new")
"""What a folder has that is a maildir; a file in one of them is a message."""
ATTACHMENTS = "objects/attachments"
"""Where attachments go, by their messages' paths; with a number, if something of that name came with the transfer."""
MESSAGE_BYTES = 64 << 20
"""Largest message that is read."""
MOST_ATTACHMENTS = 1000
"""Of one message."""
_MOST_PARTS = 10_000
_MOST_LINES = 4_000_000
_MOST_SECONDS = 60.0
"""How long a message may take to be taken apart: each line is held against the boundary of every part that it is in."""
_CHUNK_BYTES = 1 << 16
_BROKEN = (MessageError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""What Python's modules say of what makes no sense to them."""


def no_maildir() -> ContentError:
    """The error where maildirs were promised and none is."""
    violation = Violation(path="", rule="maildir", expected="a folder with the folders cur and new", actual="none")
    return ContentError(
        "there is no maildir in the transfer",
        violations=(violation,),
        remediation="Send maildirs, each a folder with `cur`, `new` and `tmp`; or leave the request's `type` out.",
    )


class UnreadableMailError(ValueError):
    """A message that is not read; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """A part of a message that is a file: the name that the sender gave it, empty for none, and its content."""

    name: str
    content: bytes


def attachments(path: Path) -> Iterator[Attachment]:
    """Give the attachments of a message, and those of messages within it, one after the other.

    Raises `UnreadableMailError` for what is too large, has too many parts or too many within one another.
    """
    size = path.stat().st_size
    if size > MESSAGE_BYTES:
        raise UnreadableMailError(f"{size} bytes; the largest message that is read has {MESSAGE_BYTES}")
    try:
        with path.open("rb") as file:
            message = _parsed(file)
        yield from _attachments(message)
    except RecursionError as error:
        raise UnreadableMailError("it has too many parts within one another") from error
    except _BROKEN as error:
        if isinstance(error, UnreadableMailError):
            raise
        raise UnreadableMailError(f"it cannot be taken apart: {error}") from error


def _parsed(file: BinaryIO) -> Message:
    """Take a message apart, within limits: a part of three bytes takes a thousand times as many in memory."""
    parts = lines = 0

    def part(policy: Policy[Any] = compat32) -> Message:
        nonlocal parts
        parts += 1
        if parts > _MOST_PARTS:
            raise UnreadableMailError(f"it has more than {_MOST_PARTS} parts")
        return Message(policy)

    parser = BytesFeedParser(part, policy=compat32)
    until = time.monotonic() + _MOST_SECONDS
    while chunk := file.read(_CHUNK_BYTES):
        lines += chunk.count(b"\n") + chunk.count(b"\r")
        if lines > _MOST_LINES:
            raise UnreadableMailError(f"it has more than {_MOST_LINES} lines")
        if time.monotonic() > until:
            raise UnreadableMailError(f"it takes longer than {_MOST_SECONDS:.0f} seconds to take apart")
        parser.feed(chunk)
    return parser.close()


def _attachments(message: Message) -> Iterator[Attachment]:
    found = 0
    for part in message.walk():
        name = _name(part)
        if part.is_multipart() or (name is None and part.get_content_disposition() != "attachment"):
            continue
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        found += 1
        if found > MOST_ATTACHMENTS:
            raise UnreadableMailError(f"it has more than {MOST_ATTACHMENTS} attachments")
        yield Attachment(name=_decoded(name or ""), content=content)


def _name(part: Message) -> str | None:
    """What a part says that it is called; empty where that cannot be read."""
    try:
        return part.get_filename()
    except _BROKEN:
        return ""


def _decoded(name: str) -> str:
    """The name without the encoding of headers (RFC 2047), which mail programs use for names against the rules."""
    try:
        decoded = str(make_header(decode_header(name)))
        os.fsencode(decoded)  # a name: half a surrogate pair, which some encodings can write, stands for no byte
    except _BROKEN:
        return escape_name(name)
    return decoded
