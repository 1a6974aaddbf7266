"""Make the corpora that ingests are timed on: seeded, so that every run and every machine has the same files.

    python -m bench.corpora FOLDER mixed-1000 …

| corpus | what |
|---|---|
| text-N | N text files, about 6.4 kB each |
| mixed-N | N files: text, PNG, JPEG, PDF, XML and WAV in equal parts, 1 to 200 kB, log-uniform |
| wav-1g | one WAV file of 1 GiB |

N may be any number: text-1000, mixed-1000 and mixed-5000 are the usual ones; text-2000 and text-20000 show the memory.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

SEED = 20_240_229
MOST_IN_A_FOLDER = 250
GIBIBYTE = 2**30
WORDS = tuple(
    "archive record series fonds item keeper lamp harbour ledger letter chart tide island signal winter supply "  # noqa: SIM905
    "accession register volume folio minute report estate parish survey plan negative print reel tape bulletin".split()
)


def make(name: str, root: Path) -> Path:
    """Make the corpus `name` below `root`, unless it is there whole, and give its folder. Raises `ValueError`."""
    folder = root / name
    complete = root / f"{name}.complete"
    if complete.exists() and folder.is_dir():
        return folder
    complete.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    kind, _, size = name.partition("-")
    folder.mkdir(parents=True)
    if name == "wav-1g":
        write_wav(folder / "recording.wav", GIBIBYTE, random.Random(SEED))
    elif kind in {"text", "mixed"} and size.isdigit():
        _make_many(folder, int(size), _MAKERS if kind == "mixed" else (("txt", text),), random.Random(SEED), kind)
    else:
        raise ValueError(f"no corpus is named {name}: text-N, mixed-N or wav-1g")
    complete.touch()
    return folder


Maker = Callable[[random.Random, int], bytes]


def _make_many(
    folder: Path, count: int, makers: tuple[tuple[str, Maker], ...], chance: random.Random, kind: str
) -> None:
    for number in range(count):
        ending, maker = makers[number % len(makers)]
        size = (
            int(chance.gauss(6_400, 1_200))
            if kind == "text"
            else int(math.exp(chance.uniform(math.log(1e3), math.log(2e5))))
        )
        into = folder / f"series-{number // MOST_IN_A_FOLDER:03}"
        into.mkdir(exist_ok=True)
        (into / f"item-{number:06}.{ending}").write_bytes(maker(chance, max(size, 200)))


def text(chance: random.Random, size: int) -> bytes:
    parts: list[str] = []
    length = 0
    while length < size:
        line = " ".join(chance.choices(WORDS, k=12))
        parts.append(line)
        length += len(line) + 1
    return ("\n".join(parts) + "\n").encode()[:size]


def xml(chance: random.Random, size: int) -> bytes:
    body = io.StringIO()
    body.write('<?xml version="1.0" encoding="UTF-8"?>\n<records>\n')
    while body.tell() < size:
        title = " ".join(chance.choices(WORDS, k=4))
        body.write(f'  <record id="r{chance.randrange(10**9)}"><title>{title}</title></record>\n')
    body.write("</records>\n")
    return body.getvalue().encode()


def wav(chance: random.Random, size: int) -> bytes:
    data = chance.randbytes(max(2, size - 44) & ~1)
    return wav_header(len(data)) + data


def wav_header(data_bytes: int, rate: int = 44_100) -> bytes:
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + data_bytes, b"WAVE")
        + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
        + struct.pack("<4sI", b"data", data_bytes)
    )


def write_wav(path: Path, size: int, chance: random.Random) -> None:
    with path.open("wb") as file:
        left = size - file.write(wav_header(size - 44))
        while left:
            left -= file.write(chance.randbytes(min(left, 2**20)))


def png(chance: random.Random, size: int) -> bytes:
    return _image(chance, size, "PNG", bytes_each=3.0)


def jpeg(chance: random.Random, size: int) -> bytes:
    return _image(chance, size, "JPEG", bytes_each=1.25)


def _image(chance: random.Random, size: int, kind: str, bytes_each: float) -> bytes:
    """Noise does not compress, so the number of pixels gives the size."""
    from PIL import Image

    side = max(4, math.isqrt(int(size / bytes_each)))
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), chance.randbytes(side * side * 3)).save(file, kind)
    return file.getvalue()


def pdf(chance: random.Random, size: int) -> bytes:
    """One page of text, and as much in a stream of its own as the size asks for."""
    page = b"BT /F1 12 Tf 72 720 Td (" + text(chance, 60).strip() + b") Tj ET"
    filling = chance.randbytes(max(0, size - 800))
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources 7 0 R >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(filling), filling),
        b"<< /Font << /F1 4 0 R >> >>",
    )
    file = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(file)


_MAKERS: tuple[tuple[str, Maker], ...] = (
    ("txt", text),
    ("png", png),
    ("jpg", jpeg),
    ("pdf", pdf),
    ("xml", xml),
    ("wav", wav),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make seeded corpora.")
    parser.add_argument("root", type=Path)
    parser.add_argument("names", nargs="+", help="text-N, mixed-N, wav-1g")
    arguments = parser.parse_args()
    for name in arguments.names:
        try:
            folder = make(name, arguments.root)
        except ValueError as error:
            sys.exit(str(error))
        files = [path for path in folder.rglob("*") if path.is_file()]
        print(f"{folder}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
