"""A page about an AIP, for people: what is inside, when what was done, what small images look like."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ingestd.aip.container import shown
from ingestd.aip.extraction import Output, copy_all, new_file
from ingestd.aip.inspection import inspected
from ingestd.aip.page import page
from ingestd.aip.reading import Reading, opened
from ingestd.aip.records import Image, Moment, Reported

FILES = 1000
"""How many files the page lists."""
IMAGES = 24
_IMAGE_BYTES = 256 * 1024
_BARS = 60

_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))
_THUMBNAILS = """
SELECT member.path, coalesce((SELECT min(file.path) FROM file
    WHERE instr(lower(CAST(member.path AS TEXT)), file.identifier) > 0 AND file.identifier <> ''), member.path)
FROM member WHERE member.path >= ? AND member.path < ? ORDER BY member.path LIMIT ?
"""
_IMAGES = """
SELECT path, path FROM member LEFT JOIN file USING (path)
WHERE coalesce(member.size_bytes, file.size_bytes) BETWEEN 1 AND ?
    AND (lower(CAST(path AS TEXT)) GLOB '*.jpg' OR lower(CAST(path AS TEXT)) GLOB '*.jpeg'
        OR lower(CAST(path AS TEXT)) GLOB '*.png' OR lower(CAST(path AS TEXT)) GLOB '*.gif')
ORDER BY path LIMIT ?
"""


async def report(path: Path, output: Output = None, *, scratch: Path | None = None) -> Reported:
    """Write one HTML page about the AIP at `path`, with nothing it needs from elsewhere, to `output` (see `extract`;
    in a folder it is called after the AIP).

    Images up to 256 KiB are shown, thumbnails first, at most 24. Raises what `extract` raises.
    """
    async with opened(path, scratch=scratch) as reading:
        return await reading.run(partial(_reported, reading, output))


def _reported(reading: Reading, output: Output) -> Reported:
    found = inspected(reading, FILES)
    images = _images(reading)
    happened = _moments(reading, "event", "at")
    changed = _moments(reading, "file", "modified_at")
    with new_file(os.fsencode(f"{reading.name}.html"), output) as (out, place):
        for part in page(found, images=images, happened=happened, changed=changed):
            out.write(part.encode("utf-8", "replace"))
    return Reported(output=place, files=len(found.tree), members=found.members, images=len(images))


def _moments(reading: Reading, table: str, column: str) -> Sequence[Moment]:
    """Count by the shortest stretch of time that leaves few enough bars."""
    for letters in (16, 13, 10, 7, 4, 3):
        when = f"substr({column}, 1, {letters})"
        sql = f"SELECT {when}, count(*) FROM {table} WHERE {column} GLOB '[0-9][0-9][0-9][0-9]*' GROUP BY 1 ORDER BY 1"  # noqa: S608  names of this module
        rows = [row for row, _ in zip(reading.facts.rows(sql), range(_BARS + 1), strict=False)]
        if len(rows) <= _BARS:
            return [Moment(when=f"{when}0s" if letters == 3 else when, count=count) for when, count in rows]
    return ()


def _images(reading: Reading) -> Sequence[Image]:
    start = b"/".join(filter(None, (reading.payload, b"thumbnails")))
    chosen = dict(reading.facts.rows(_THUMBNAILS, (start + b"/", start + b"0", IMAGES)))
    for path, same in reading.facts.rows(_IMAGES, (_IMAGE_BYTES, 4 * IMAGES)):
        if len(chosen) < IMAGES and path not in chosen.values():
            chosen.setdefault(path, same)
    places = {path: _Small() for path in chosen}
    taken, _ = copy_all(reading, dict(places))
    images = []
    for path, about in chosen.items():
        content = places[path].getvalue()
        media_type = next((name for magic, name in _MAGIC if content.startswith(magic)), "")
        if path in taken and media_type and len(content) <= _IMAGE_BYTES:
            images.append(Image(path=shown(about), media_type=media_type, content=content))
    return images


class _Small(io.BytesIO):
    """Keeps what is small, and of anything larger just enough to tell: no METS is believed about a size."""

    def write(self, data: object, /) -> int:
        chunk = memoryview(data)  # type: ignore[arg-type]  # a buffer, as every file takes
        room = max(0, _IMAGE_BYTES + 1 - self.tell())
        super().write(chunk[:room])
        return len(chunk)
