"""The HTML of `report`: one page, no script, nothing loaded from anywhere; every value is escaped here."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Sequence

from ingestd.aip.records import Entry, Image, Inspection, Moment

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8885; --bar: #3b7dd8; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .92rem; }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
.bar {{ display: inline-block; height: .7rem; min-width: 1px; background: var(--bar); border-radius: 2px; }}
.wide {{ width: 30%; }}
.time {{ display: flex; align-items: flex-end; gap: 2px; height: 8rem; border-bottom: 1px solid var(--line); }}
.time span {{ flex: 1; max-width: 2.5rem; background: var(--bar); min-height: 1px; border-radius: 2px 2px 0 0; }}
.ends {{ display: flex; justify-content: space-between; font-size: .85rem; }}
.images {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; width: 9rem; font-size: .8rem; overflow-wrap: anywhere; }}
figure img {{ max-width: 9rem; max-height: 9rem; display: block; }}
.warn {{ border-left: 4px solid #d08700; padding-left: .8rem; }}
</style></head><body>
"""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def page(
    found: Inspection, *, images: Sequence[Image], happened: Sequence[Moment], changed: Sequence[Moment]
) -> Iterator[str]:
    """Give the page in parts. `happened` are the events by time, `changed` the files by their dates."""
    yield _HEAD.format(title=_text(found.name))
    yield f"<h1>{_text(found.name)}</h1>\n"
    yield _table((), [(name, value) for name, value in _summary(found) if value])
    yield from _said(found)
    yield from _counted(found)
    yield from _timeline("What was done, and when", happened)
    yield _table(
        ("Event", "Outcome", "#Count", "First", "Last"),
        [(e.type, e.outcome, str(e.count), e.first[:19], e.last[:19]) for e in found.events],
    )
    yield from _timeline("When the files were last changed before they came", changed)
    yield from _images(images)
    yield from _files(found)
    yield "</body></html>\n"


def _summary(found: Inspection) -> Iterable[tuple[str, str]]:
    packed = "a folder" if found.package_bytes is None else f"{found.form}, {_size(found.package_bytes)}"
    return (
        ("Identifier", found.identifier),
        ("Package", packed),
        ("Made", found.created_at),
        ("METS", found.mets or "none"),
        ("Files", f"{found.files} in the METS, {_size(found.size_bytes)}; {found.members} in all"),
        *found.acting,
        *found.bag_info,
    )


def _said(found: Inspection) -> Iterator[str]:
    for said in found.descriptions:
        yield f"<h2>{_text(said.title)}</h2>\n"
        yield _table((), said.rows)
    if found.rights:
        yield "<h2>Rights</h2>\n"
        rows = [(r.basis, r.grounds, "; ".join(r.acts), r.about) for r in found.rights]
        yield _table(("Basis", "Grounds", "Acts", "Of"), rows)
    if not (found.concerns or found.troubles or found.notes):
        return
    yield '<h2>To be known</h2>\n<div class="warn">\n'
    for trouble in found.troubles:
        yield f"<p>{_text(trouble.path)}: {_text(trouble.actual)} ({_text(trouble.rule)})</p>\n"
    for concern in found.concerns:
        samples = ", ".join(concern.samples)
        more = ", …" if concern.files > len(concern.samples) else ""
        yield f"<p><b>{_text(concern.what)}</b> ({concern.files}): {_text(samples)}{more}</p>\n"
    yield "".join(f"<p>{_text(note)}</p>\n" for note in found.notes)
    yield "</div>\n"


def _counted(found: Inspection) -> Iterator[str]:
    yield "<h2>What the files are for</h2>\n"
    most = max((counted.size_bytes for counted in found.by_use.values()), default=0)
    rows = [
        (use or "not said", str(counted.files), _size(counted.size_bytes), _bar(counted.size_bytes, most))
        for use, counted in found.by_use.items()
    ]
    yield _table(("Use", "#Files", "#Size", ""), rows, bars=True)
    yield "<h2>Formats</h2>\n"
    most = max((counted.files for counted in found.formats), default=0)
    rows_of_formats = [(f.words, f.puid, str(f.files), _size(f.size_bytes), _bar(f.files, most)) for f in found.formats]
    yield _table(("Format", "PUID", "#Files", "#Size", ""), rows_of_formats, bars=True)


def _timeline(title: str, moments: Sequence[Moment]) -> Iterator[str]:
    yield f"<h2>{_text(title)}</h2>\n"
    if not moments:
        yield "<p>The METS does not say.</p>\n"
        return
    most = max(moment.count for moment in moments)
    yield '<div class="time" role="img" aria-label="' + _text(title) + '">\n'
    for moment in moments:
        told = f"{moment.when}: {moment.count}"
        yield f'<span style="height:{100 * moment.count / most:.1f}%" title="{_text(told)}"></span>\n'
    yield f'</div><div class="ends"><span>{_text(moments[0].when)}</span><span>{_text(moments[-1].when)}</span></div>\n'


def _images(images: Sequence[Image]) -> Iterator[str]:
    if not images:
        return
    yield '<h2>Some images</h2>\n<div class="images">\n'
    for image in images:
        data = base64.b64encode(image.content).decode("ascii")
        name = _text(image.path.rpartition("/")[2])
        yield (
            f'<figure><img alt="{name}" loading="lazy" src="data:{image.media_type};base64,{data}">'
            f'<figcaption title="{_text(image.path)}">{name}</figcaption></figure>\n'
        )
    yield "</div>\n"


def _files(found: Inspection) -> Iterator[str]:
    yield f"<h2>Files ({found.members})</h2>\n"
    yield _table(("Path", "Use", "Format", "#Size"), [_file(entry) for entry in found.tree])
    if found.not_shown:
        yield f"<p>… and {found.not_shown} more: <code>ingestd aip inspect --files -1</code> lists all.</p>\n"


def _file(entry: Entry) -> tuple[str, ...]:
    what = " ".join(part for part in (entry.format, f"({entry.puid})" if entry.puid else "") if part)
    return entry.path, entry.use, what, "" if entry.size_bytes is None else _size(entry.size_bytes)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, bars: bool = False) -> str:
    """A table; a head that begins with `#` has numbers below. With `bars`, the last column is HTML of this module."""
    numbers = {at for at, head in enumerate(heads) if head.startswith("#")}
    marks = [' class="n"' if at in numbers else "" for at in range(len(heads))]
    head = "".join(f"<th{mark}>{_text(name.lstrip('#'))}</th>" for name, mark in zip(heads, marks, strict=True))
    lines = [f"<tr>{head}</tr>\n"] if heads else []
    for row in rows:
        cells = [_text(cell) for cell in row[:-1]] + [row[-1] if bars else _text(row[-1])]
        marked = [*marks, *([""] * (len(row) - len(marks)))]
        lines.append("<tr>" + "".join(f"<td{m}>{c}</td>" for m, c in zip(marked, cells, strict=True)) + "</tr>\n")
    return f"<table>\n{''.join(lines)}</table>\n"


def _bar(count: int, most: int) -> str:
    return f'<span class="bar" style="width:{100 * count / most if most else 0:.1f}%"></span>'


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _size(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"
