"""Progress for people: a bar per link on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Self, TextIO

from ingestd.messages import Event, EventType, LinkData

_BAR_CELLS = 24


class Progress:
    """Shows events on a stream as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = False
        self._group = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def remark(self, text: str) -> None:
        self._line(text)

    def show(self, event: Event) -> None:
        link = event.data.link
        if event.kind.terminal:
            self._clear()
        if event.kind is EventType.REQUEST_WAITING:
            self._line(f"waiting{_why(event)}")
        if link is None:
            return
        if event.kind in {EventType.LINK_STARTED, EventType.LINK_RETRYING, EventType.REQUEST_PROGRESS}:
            if self._live:
                self._bar(link)
        elif event.kind is EventType.LINK_SKIPPED:
            self._line(f"  - {link.name} no")
        elif event.kind in {EventType.LINK_COMPLETED, EventType.LINK_FAILED}:
            self._ended(link, failed=event.kind is EventType.LINK_FAILED, why=_why(event))

    def _ended(self, link: LinkData, *, failed: bool, why: str) -> None:
        if link.group != self._group:
            self._group = link.group
            self._line(link.group)
        files = f", {link.files_done} file{'s' * (link.files_done != 1)}" if link.files_done else ""
        mark = "!" if failed else "+"
        self._line(f"  {mark} {link.name} ({link.seconds or 0:.1f} s{files}){why}")

    def _bar(self, link: LinkData) -> None:
        total, done = link.files_total, link.files_done
        if total:
            cells = min(_BAR_CELLS, _BAR_CELLS * done // total)
            bar = f"[{'#' * cells}{'.' * (_BAR_CELLS - cells)}] {done}/{total}"
        else:
            bar = f"{done} files" if done else "…"
        spinner = "|/-\\"[int(time.monotonic() * 8) % 4]
        tool = f" {link.tool}" if link.tool else ""
        width = shutil.get_terminal_size().columns - 1
        text = f"  {spinner} {link.name} {bar}{tool}"[:width]
        self._stream.write(f"\r\x1b[2K{text}")
        self._stream.flush()
        self._shown = True

    def _line(self, text: str) -> None:
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._shown = False


def _why(event: Event) -> str:
    error = event.data.error
    return f": {error.title}: {error.detail}" if error else ""
