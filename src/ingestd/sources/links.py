"""Where symlinks inside an archive lead, found out on paper: no link is ever made to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Parts: TypeAlias = tuple[bytes, ...]

MOST_HOPS = 40
"""As many links as Linux follows before it gives up."""
_TARGET_BYTES = 4096


class LinkRefused(Exception):
    """A link leads out of the archive (`out`), or nowhere: round and round, or through too many others."""

    def __init__(self, *, out: bool) -> None:
        super().__init__()
        self.out = out


def follow(link: Parts, links: Mapping[Parts, bytes]) -> Parts:
    """Give the path that `link` leads to in the end, through other links if need be; `()` is the archive's top.

    `links` holds the target of each link. Whether something is at the path is for the caller to see. Raises
    `LinkRefused`.
    """
    at: list[bytes] = []
    ahead = _ahead(links[link]) + list(link[-2::-1])
    hops = 1
    while ahead:
        part = ahead.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not at:
                raise LinkRefused(out=True)
            at.pop()
            continue
        at.append(part)
        further = links.get(tuple(at))
        if further is not None:
            hops += 1
            if hops > MOST_HOPS:
                raise LinkRefused(out=False)
            at.pop()
            ahead += _ahead(further)
    return tuple(at)


def _ahead(target: bytes) -> list[bytes]:
    """The parts of a link's target, the last first."""
    if target.startswith(b"/") or b"\0" in target:
        raise LinkRefused(out=True)
    if len(target) > _TARGET_BYTES:
        raise LinkRefused(out=False)
    return target.split(b"/")[::-1]
