"""A small Outlook store (PST), written after Microsoft's [MS-PST]: 32 bit (ANSI), not encoded, without its checksums.

A store is nodes, each a block of properties, and two trees of one page each that say where nodes and blocks are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

Property = tuple[int, int, int | bytes]
"""Tag, type, value: numbers of up to four bytes are in the record itself, all else in the heap."""

_LONG, _BOOLEAN, _TEXT, _TIME, _BINARY = 0x3, 0xB, 0x1E, 0x40, 0x102
_NAME, _ITEMS, _UNREAD, _HAS_FOLDERS = 0x3001, 0x3602, 0x3603, 0x360A
_STORE, _ROOT, _TOP, _INBOX, _MESSAGE = 0x21, 0x122, 0x8022, 0x8042, 0x200024
_FIRST_BLOCK = 0x4600
_NEW_YEAR_2024 = 133_485_408_000_000_000
"""FILETIME: 100 ns since 1601."""


def outlook(path: Path) -> None:
    """A store with the folder `Inbox` and one message in it, `Hello preservation`."""
    entry = struct.pack("<I16sI", 0, b"\x11" * 16, _TOP)
    nodes: list[tuple[int, int, list[Property]]] = [
        (_STORE, 0, [(_NAME, _TEXT, b"Store"), (0x35DF, _LONG, 1), (0x35E0, _BINARY, entry)]),
        (_ROOT, _ROOT, _folder(b"Root", items=0)),
        (_TOP, _ROOT, _folder(b"Top", items=0)),
        (_INBOX, _TOP, _folder(b"Inbox", items=1)),
        (_MESSAGE, _INBOX, _note()),
    ]
    blocks, block_entries, node_entries, block = b"", [], [], 4
    for node, parent, properties in nodes:
        heap = _heap(properties)
        block_entries.append(struct.pack("<IIHH", block, _FIRST_BLOCK + len(blocks), len(heap), 2))
        node_entries.append(struct.pack("<IIII", node, block, 0, parent))
        room = (len(heap) + 12 + 63) // 64 * 64
        blocks += heap.ljust(room - 12, b"\0") + struct.pack("<HHII", len(heap), 0, block, 0)
        block += 4
    blocks = blocks.ljust((len(blocks) + 511) // 512 * 512, b"\0")
    node_page, block_page = _FIRST_BLOCK + len(blocks), _FIRST_BLOCK + len(blocks) + 512
    header = bytearray(_FIRST_BLOCK)
    struct.pack_into("<4sI2sHHBB", header, 0, b"!BDN", 0, b"SM", 14, 19, 1, 1)
    struct.pack_into("<I", header, 0xA8, block_page + 512)
    struct.pack_into("<4I", header, 0xB8, block, node_page, block + 4, block_page)
    header[0x1CC] = 0x80
    pages = _page(node_entries, 0x81, block) + _page(block_entries, 0x80, block + 4)
    path.write_bytes(bytes(header) + blocks + pages)


def _folder(name: bytes, *, items: int) -> list[Property]:
    return [(_NAME, _TEXT, name), (_ITEMS, _LONG, items), (_UNREAD, _LONG, 0), (_HAS_FOLDERS, _BOOLEAN, 1 - items)]


def _note() -> list[Property]:
    return [
        (0x1A, _TEXT, b"IPM.Note"),
        (0x37, _TEXT, b"Hello"),
        (0x39, _TIME, struct.pack("<Q", _NEW_YEAR_2024)),
        (0xC1A, _TEXT, b"Ann"),
        (0xC1F, _TEXT, b"ann@example.org"),
        (0x1000, _TEXT, b"Hello preservation\r\n"),
    ]


def _heap(properties: Sequence[Property]) -> bytes:
    """A heap whose first item leads to the second, a table of properties; further items are their values."""
    values: list[bytes] = []
    records = b""
    for tag, kind, value in sorted(properties):
        if isinstance(value, bytes):
            values.append(value)
            value = (len(values) + 2) << 5  # noqa: PLW2901  where it is, from here on
        records += struct.pack("<HHI", tag, kind, value)
    items = [struct.pack("<BBBBI", 0xB5, 2, 6, 0, 2 << 5), records, *values]
    offsets = [12]
    for item in items:
        offsets.append(offsets[-1] + len(item))
    content = b"".join(items)
    content += b"\0" * (len(content) % 2)
    head = struct.pack("<HBBI4x", 12 + len(content), 0xEC, 0xBC, 1 << 5)
    return head + content + struct.pack(f"<HH{len(offsets)}H", len(items), 0, *offsets)


def _page(entries: Sequence[bytes], kind: int, block: int) -> bytes:
    size = len(entries[0])
    tail = struct.pack("<BBBBBBHII", len(entries), 496 // size, size, 0, kind, kind, 0, block, 0)
    return b"".join(entries).ljust(496, b"\0") + tail
