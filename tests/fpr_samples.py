"""Small files of many formats, made on the spot, for the tests that run the registry's commands."""

from __future__ import annotations

import gzip
import mailbox
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from reportlab.pdfgen import canvas

Maker = Callable[[Path], None]

EPUB = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>""",
    "book.opf": """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:1b9e0b52-0f3c-4a53-a5a3-38ba0b4bcb4c</dc:identifier>
<dc:title>Sample</dc:title><dc:language>en</dc:language>
<meta property="dcterms:modified">2024-01-01T00:00:00Z</meta></metadata>
<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest>
<spine><itemref idref="nav"/></spine></package>""",
    "nav.xhtml": """<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">
<head><title>Sample</title></head><body><nav epub:type="toc"><ol><li><a href="nav.xhtml">Here</a></li></ol></nav>
</body></html>""",
}


def tool(*argv: str | Path) -> None:
    subprocess.run([str(part) for part in argv], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def picture(path: Path) -> None:
    image = Image.new("RGB", (420, 120), "white")
    draw = ImageDraw.Draw(image)
    draw.text((15, 40), "Hello preservation", fill="black", font=ImageFont.load_default(36))
    draw.rectangle((0, 110, 419, 119), fill=(200, 30, 40))
    image.save(path)


def photoshop(path: Path) -> None:
    picture(path.with_suffix(".png"))
    tool("convert", path.with_suffix(".png"), path)


def exr(path: Path) -> None:
    tool("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48", "-frames:v", "1", path)


def raw(path: Path) -> None:
    """A camera's raw image as Adobe's DNG describes it (version 1.4): TIFF tags and 64 x 48 sensor values of 16 bits."""
    width, height = 64, 48
    pixels = b"".join(struct.pack("<H", (x * 900 + y * 300) % 65535) for y in range(height) for x in range(width))
    short, long, byte, ascii_, srational, rational = 3, 4, 1, 2, 10, 5
    matrix = struct.pack("<18i", *(n for value in (1, 0, 0, 0, 1, 0, 0, 0, 1) for n in (value * 10000, 10000)))
    tags: list[tuple[int, int, int, bytes]] = [
        (254, long, 1, struct.pack("<I", 0)),
        (256, long, 1, struct.pack("<I", width)),
        (257, long, 1, struct.pack("<I", height)),
        (258, short, 1, struct.pack("<H", 16)),
        (259, short, 1, struct.pack("<H", 1)),
        (262, short, 1, struct.pack("<H", 32803)),
        (271, ascii_, 6, b"Maker\0"),
        (272, ascii_, 6, b"Model\0"),
        (273, long, 1, b"DATA"),
        (274, short, 1, struct.pack("<H", 1)),
        (277, short, 1, struct.pack("<H", 1)),
        (278, long, 1, struct.pack("<I", height)),
        (279, long, 1, struct.pack("<I", len(pixels))),
        (284, short, 1, struct.pack("<H", 1)),
        (33421, short, 2, struct.pack("<2H", 2, 2)),
        (33422, byte, 4, bytes((0, 1, 1, 2))),
        (50706, byte, 4, bytes((1, 3, 0, 0))),
        (50707, byte, 4, bytes((1, 1, 0, 0))),
        (50708, ascii_, 12, b"Maker Model\0"),
        (50717, long, 1, struct.pack("<I", 65535)),
        (50721, srational, 9, matrix),
        (50728, rational, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
        (50778, short, 1, struct.pack("<H", 21)),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    more = b"".join(data + b"\0" * (len(data) % 2) for *_, data in tags if len(data) > 4)
    pixels_at = start + len(more)
    out, extra = struct.pack("<2sHIH", b"II", 42, 8, len(tags)), b""
    for number, kind, count, data in tags:
        if data == b"DATA":
            value = struct.pack("<I", pixels_at)
        elif len(data) <= 4:
            value = data.ljust(4, b"\0")
        else:
            value = struct.pack("<I", start + len(extra))
            extra += data + b"\0" * (len(data) % 2)
        out += struct.pack("<HHI", number, kind, count) + value
    path.write_bytes(out + struct.pack("<I", 0) + extra + pixels)


def sound(path: Path) -> None:
    tool("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", path)


def deep_sound(path: Path) -> None:
    tool("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "pcm_s24be", path)


def film(path: Path) -> None:
    sources = ("-f", "lavfi", "-i", "testsrc=size=161x121:rate=5:duration=1", "-f", "lavfi", "-i", "sine=duration=1")
    codecs = ("-c:v", "ffv1" if path.suffix == ".mkv" else "mjpeg", "-c:a", "pcm_s16le")
    tool("ffmpeg", "-v", "error", *sources, *codecs, path)


def pdf(path: Path) -> None:
    page = canvas.Canvas(str(path))
    page.setFillColorRGB(0.8, 0.1, 0.1)
    page.drawString(100, 700, "Hello preservation")
    page.showPage()
    page.save()


def eps(path: Path) -> None:
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n"
        "newpath 10 10 moveto 90 90 lineto stroke\nshowpage\n%%EOF\n"
    )


def svg(path: Path) -> None:
    path.write_text(
        '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="50" height="50">'
        '<circle cx="20" cy="20" r="10" fill="red"/></svg>'
    )


def text(path: Path) -> None:
    path.write_text("Grüße, preservation\n" * 5, encoding="utf-8")


def xml(path: Path) -> None:
    path.write_text('<?xml version="1.0"?>\n<notes><note>one</note></notes>\n')


PAGE = """<?xml version="1.0"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"
 office:version="1.2" office:mimetype="application/vnd.oasis.opendocument.{mime}">
<office:body><office:{body}><draw:page draw:name="one">
<draw:frame svg:width="5cm" svg:height="2cm" svg:x="1cm" svg:y="1cm"><draw:text-box><text:p>Hello</text:p></draw:text-box>
</draw:frame></draw:page></office:{body}></office:body></office:document>"""
SEEDS = {
    ".ods": (".csv", "a,b\n1,2\n"),
    ".odt": (".txt", "Hello preservation\n"),
    ".odp": (".fodp", PAGE.format(mime="presentation", body="presentation")),
    ".odg": (".fodg", PAGE.format(mime="graphics", body="drawing")),
}


def office(path: Path) -> None:
    """A document that LibreOffice itself saves in the format of the path's extension."""
    extension, content = SEEDS[path.suffix]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seed = folder / f"seed{extension}"
        seed.write_text(content)
        options = ("--headless", "--norestore", "--convert-to", path.suffix[1:], "--outdir", folder)
        tool("soffice", f"-env:UserInstallation=file://{folder}/profile", *options, seed)
        shutil.move(seed.with_suffix(path.suffix), path)


def epub(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as book:
        for name, content in EPUB.items():
            book.writestr(name, content)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/one.txt", "one")


def tarred(path: Path) -> None:
    inner = path.with_suffix(".txt")
    inner.write_text("one")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "folder/one.txt")


def disk(path: Path) -> None:
    """A FAT image with one file in it."""
    inner = path.with_suffix(".txt")
    inner.write_text("one")
    path.write_bytes(b"\0" * 1_474_560)
    tool("mkfs.fat", path)
    tool("mcopy", "-i", path, inner, "::one.txt")


def ext4(path: Path) -> None:
    """An ext4 image with one file in it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, "one.txt").write_text("one")
        path.write_bytes(b"")
        tool("mkfs.ext4", "-q", "-d", name, path, "1M")


def iso(path: Path) -> None:
    """An ISO 9660 image with two files in it, their names as Rock Ridge has them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, "one.txt").write_text("one")
        Path(name, "A name as long as people like.text").write_text("two")
        tool("genisoimage", "-quiet", "-R", "-o", path, name)


def partitioned(path: Path) -> None:
    """A disk with a boot record (MBR) and three partitions: swap without a file system, FAT and ext4."""
    swap, images = b"\0" * 65536, []
    for make in (disk, ext4):
        make(path)
        images.append(path.read_bytes())
    table, start, content = b"", 64, b""
    for kind, image in ((0x82, swap), (0x0C, images[0]), (0x83, images[1])):
        table += struct.pack("<4xB3xII", kind, start, len(image) // 512)
        start += len(image) // 512
        content += image
    path.write_bytes((bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa").ljust(64 * 512, b"\0") + content)


def maildir(path: Path) -> None:
    box = mailbox.Maildir(path, create=True)
    sent = box.add_folder("Sent")
    for folder, subject in ((box, "first"), (sent, "second")):
        message = mailbox.MaildirMessage()
        message["Subject"] = subject
        message["From"] = "someone@example.org"
        message.set_payload("Hello\nFrom here\n")
        folder.add(message)


def warc(path: Path) -> None:
    body = b"hello"
    head = (
        "WARC/1.0\r\nWARC-Type: resource\r\nWARC-Record-ID: <urn:uuid:1b9e0b52-0f3c-4a53-a5a3-38ba0b4bcb4c>\r\n"
        "WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Target-URI: file:///a.txt\r\nContent-Type: text/plain\r\n"
        f"WARC-Block-Digest: sha1:VL2MMHO4YXUKFWV63YHTWSBM3GXKSQ2N\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    path.write_bytes(gzip.compress(head.encode() + body + b"\r\n\r\n"))


def cut(make: Maker) -> Maker:
    """The same file without its second half."""

    def maker(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return maker


def beheaded(make: Maker) -> Maker:
    """The same file with zeros for its first eight bytes."""

    def maker(path: Path) -> None:
        make(path)
        path.write_bytes(bytes(8) + path.read_bytes()[8:])

    return maker
