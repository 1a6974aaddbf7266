"""Where our policy is not Archivematica's: the document's table, held against Archivematica's rules and against ours."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ingestd.fpr.records import FormatVersion, Rule, ScriptType
from ingestd.fpr.registry import Registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "preservation-policy.md"
HEADING = "## Where this policy is not Archivematica's"

TIFF, JPEG = "Transcoding to tif with convert", "Transcoding to jpg with convert"
THUMBNAIL = "Transcoding to jpg thumbnail with convert"
SVG, JHOVE = "Transcoding to plain svg with inkscape", "Validate using JHOVE"
RAR, SLEUTH = "Extracting RAR format.", "tsk_recover"
EQUIVALENT = {
    "ExifTool": {"exiftool"},
    "MediaInfo": {"mediainfo"},
    "FFprobe": {"ffprobe"},
    "fiwalk": {"fiwalk"},
    "Copying file to access directory": {"copy"},
    "Using default thumbnail": {"default-thumbnail"},
    "Extracting 7Zip compatible format.": {"7z-extract"},
    SLEUTH: {"tsk-recover"},
    TIFF: {"imagemagick-tiff"},
    "Transcoding to tif with ffmpeg": {"ffmpeg-tiff"},
    JPEG: {"imagemagick-jpeg"},
    THUMBNAIL: {"imagemagick-thumbnail"},
    "Transcoding to mp3 with ffmpeg": {"ffmpeg-mp3"},
    "Transcoding to mp4 with ffmpeg": {"ffmpeg-mp4"},
    "Transcoding to wav with ffmpeg": {"ffmpeg-wav"},
    "Transcoding to pdf with inkscape": {"inkscape-pdf"},
    "Transcoding to pdf with ps2pdf": {"ghostscript-pdf"},  # ps2pdf is Ghostscript
    "Transcoding to pdfa with Ghostscript": {"ghostscript-pdfa"},
    SVG: {"inkscape-svg"},
    "Transcoding maildir to mbox": {"maildir-mbox"},
    "Transcribe using Tesseract": {"tesseract-text"},
    JHOVE: {"jhove-aiff", "jhove-gif", "jhove-jpeg", "jhove-pdf", "jhove-tiff", "jhove-wave"},
    "Validate using MediaConch": {"mediaconch"},
}
"""What commands of Archivematica's are called, and those of ours that do the same with the same tool."""


class Difference(NamedTuple):
    """What is run on a format version there and here; empty for nothing."""

    purpose: str
    version: str
    there: str
    here: str


class Claim(NamedTuple):
    """What a row of the table says: all differences of this kind, or those of some format versions."""

    purpose: str
    there: str
    here: str
    versions: str = ""

    def covers(self, difference: Difference) -> bool:
        same = (self.purpose, self.there, self.here) == (difference.purpose, difference.there, difference.here)
        return same and (not self.versions or difference.version in self.versions.split())


def pictures(here: str, there: tuple[str, str, str] = ("", "", ""), versions: str = "") -> list[Claim]:
    """A preservation copy, an access copy and a thumbnail by commands of one family."""
    purposes = zip(("preservation", "access", "thumbnail"), there, ("tiff", "jpeg", "thumbnail"), strict=True)
    return [Claim(purpose, theirs, f"{here}-{kind}", versions) for purpose, theirs, kind in purposes]


CONVERT = (TIFF, JPEG, THUMBNAIL)
NEW_PICTURES = "fmt/86 fmt/87 fmt/88 fmt/89 fmt/90 fmt/566 fmt/567 fmt/568 fmt/935 fmt/996 fmt/1101"
LOSSLESS = "fmt/279 fmt/947 fmt/416 fmt/143"
LOSSY = "x-fmt/135 x-fmt/139 fmt/735 fmt/356 fmt/954 fmt/946 fmt/948 fmt/203"
BROADCAST = " ".join(f"fmt/{number}" for number in range(703, 714)) + " fmt/735"
MEDIA = (
    "fmt/1055 fmt/131 fmt/132 fmt/133 fmt/143 fmt/200 fmt/203 fmt/279 fmt/356 fmt/357 fmt/416 fmt/441 fmt/569 fmt/573"
    " fmt/585 fmt/596 fmt/640 fmt/649 fmt/783 fmt/784 fmt/785 fmt/786 fmt/787 fmt/788 fmt/789 fmt/790 fmt/791 x-fmt/139"
    " x-fmt/152 x-fmt/382"
)
EXIF = "fmt/645"
OFF = "fmt/367 x-fmt/185"

ROWS: dict[str, Sequence[Claim]] = {
    "AVI, QuickTime, MPEG-1/2/4, WMV, ASF, FLV, ProRes; 3GPP, WebM, Ogg Theora, MPEG-TS, M2TS, VOB, DV, RealMedia,"
    " elementary streams": [Claim("preservation", "", "ffmpeg-ffv1")],
    "25 video formats: MP4, MPEG-1/2, WebM, M2TS, DV, RealMedia, the further kinds of MXF …": [
        Claim("access", "", "ffmpeg-mp4")
    ],
    "word processing, spreadsheets, presentations, drawings, Visio, Publisher, CorelDRAW, metafiles, plain text": [
        Claim("preservation", "", f"libreoffice-{kind}-pdfa") for kind in ("writer", "calc", "impress", "draw")
    ],
    "PDF 2.0, PostScript": [
        Claim("preservation", "", "ghostscript-pdfa"),
        Claim("access", "", "ghostscript-pdf"),
        Claim("validation", "", "qpdf-check"),
    ],
    "Exif JPEG (four versions)": [Claim("preservation", TIFF, "", "fmt/1507 x-fmt/390 x-fmt/391 x-fmt/398")],
    "Exif JPEG 2.2.1": [
        Claim("access", "", "imagemagick-jpeg", EXIF),
        Claim("thumbnail", "", "imagemagick-thumbnail", EXIF),
        Claim("validation", "", "jhove-jpeg"),
        *(Claim("characterization", "", tool, EXIF) for tool in ("exiftool", "mediainfo", "ffprobe")),
    ],
    "camera raw: nine PUIDs (CR2, CRW, CR3, ERF, RAF, MRW, X3F, ARW, SR2)": pictures("libraw"),
    "camera raw, DNG": pictures("libraw", CONVERT),
    "Photoshop": [
        Claim("preservation", TIFF, "imagemagick-tiff-composite"),
        Claim("preservation", "", "imagemagick-tiff-composite"),
    ],
    "OpenEXR": pictures("ffmpeg", CONVERT),
    "ESRI world file, raw bitmap": [
        Claim(purpose, theirs, "", OFF)
        for purpose, theirs in zip(("preservation", "access", "thumbnail"), CONVERT, strict=True)
    ],
    "PCX; WebP, HEIF, APNG, PSB": pictures("imagemagick", versions=NEW_PICTURES),
    "AIFF 1.3, AU, AC-3, AMR, Opus, Speex, Vorbis": [
        Claim("preservation", "", "ffmpeg-wav"),
        Claim("access", "", "ffmpeg-mp3", LOSSY),
    ],
    "FLAC, Ogg FLAC, CAF, WAVE (extensible)": [Claim("access", "", "ffmpeg-mp3", LOSSLESS)],
    "Illustrator": [Claim("access", "Transcoding to pdf with inkscape", "ghostscript-pdf")],
    "EPS to SVG": [Claim("preservation", SVG, "inkscape-svg-of-postscript")],
    "Outlook stores (PST)": [Claim("preservation", "", "readpst-mbox"), Claim("extract", "", "readpst-extract")],
    "maildir": [Claim("preservation", "", "maildir-mbox")],
    "Apple disk image, ISO 9660": [Claim("extract", SLEUTH, "7z-extract")],
    "AD1": [Claim("extract", RAR, "")],
    "RAR": [Claim("extract", RAR, "unar-extract")],
    "RAR 5, LHA, StuffIt, ZOO, NuFX, ARJ, CPIO, XZ, XAR, WIM, compress, HFS, UDF, APM, exFAT": [
        Claim("extract", "", command) for command in ("unar-extract", "7z-extract", "tsk-recover")
    ],
    "default characterization": [Claim("default_characterization", "FITS", "exiftool-any")],
    "30 audio and video formats, Matroska, MXF, WMV and FLAC among them": [
        Claim("characterization", "", tool, MEDIA) for tool in ("exiftool", "mediainfo", "ffprobe")
    ],
    "Broadcast WAVE, RF64, AC-3": [Claim("characterization", "", "exiftool", BROADCAST)],
    "EnCase image, exFAT image": [Claim("characterization", "", "fiwalk")],
    "JP2": [Claim("validation", JHOVE, "jpylyzer")],
    "WARC, JPEG XL": [Claim("validation", JHOVE, "fastwarc-check"), Claim("validation", JHOVE, "ffmpeg-decode")],
    "PNG, BMP, WebP, PCX, Photoshop, TGA; audio and video; FLAC; XML, SVG; EPUB": [
        Claim("validation", "", command)
        for command in ("imagemagick-decode", "ffmpeg-decode", "flac-test", "xmllint", "epubcheck")
    ],
    "TIFF/IT, TIFF/EP, GeoTIFF, TIFF-FX; WAVE (extensible), Broadcast WAVE 2 (fmt/527)": [
        Claim("validation", "", "jhove-tiff"),
        Claim("validation", "", "jhove-wave"),
    ],
    "transcription": [Claim("transcription", "", "tesseract-text")],
}
"""The rows that say which command is run, or that none is."""


def script(registry: Registry, command: str) -> str:
    found = registry.command(command)
    assert found is not None
    return found.script


def one_version_a_puid(registry: Registry) -> bool:
    twice = [puid for puid, times in Counter(version.puid for version in registry.versions).items() if times > 1]
    active = {version.puid for version in registry.active(FormatVersion)}
    return sorted(filter(None, twice)) == ["fmt/1042", "fmt/1083", "x-fmt/395"] and active.issuperset(twice)


def names_its_module(registry: Registry) -> bool:
    return all(" -m " in script(registry, command) for command in EQUIVALENT[JHOVE])


def pdfa_2b(registry: Registry) -> bool:
    found = registry.command("ghostscript-pdfa")
    return found is not None and found.output_format == "fmt/477" and "/OutputIntents" in found.script


def keeps_the_depth(registry: Registry) -> bool:
    return all(codec in script(registry, "ffmpeg-wav") for codec in ("pcm_s24le", "pcm_s32le", "pcm_f64le"))


def takes_policies_from_a_folder(registry: Registry) -> bool:
    found = registry.command("mediaconch-policies")
    return found is not None and found.script_type is ScriptType.PYTHON_SCRIPT and '.glob("*.xml")' in found.script


HOW: dict[str, Callable[[Registry], bool]] = {
    "PDF": pdfa_2b,
    "all sound to WAVE": keeps_the_depth,
    "JHOVE": names_its_module,
    "disk with partitions": lambda registry: "mmls -a" in script(registry, "tsk-recover"),
    "three PUIDs that two format versions have (x-fmt/395, fmt/1042, fmt/1083)": one_version_a_puid,
    "policy check": takes_policies_from_a_folder,
}
"""The rows that say how the same is done otherwise."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def differences(registry: Registry, shared: Path) -> frozenset[Difference]:
    """Archivematica's active rules against ours, a format version and purpose after another."""
    there = archivematicas(registry, shared / "fpr")
    here: dict[tuple[str, str], set[str]] = {}
    for rule in registry.active(Rule):
        here.setdefault((rule.purpose.value, rule.format), set()).add(rule.command)
    return frozenset(
        difference
        for key in {*there, *here}
        for difference in compared(*key, there.get(key, frozenset()), here.get(key, frozenset()))
    )


def archivematicas(registry: Registry, facts: Path) -> Mapping[tuple[str, str], set[str]]:
    versions = {str(version.uuid): version.id for version in registry.versions}
    without_puid = {
        (row["format"], row["version_description"]): versions[row["archivematica_uuid"]]
        for row in rows(facts / "formats.csv")
        if not row["puid"]
    }
    rules: dict[tuple[str, str], set[str]] = {}
    for row in rows(facts / "rules.csv"):
        if row["state"] == "active":
            version = row["puid"] or without_puid[row["format"], row["version_description"]]
            rules.setdefault((row["purpose"], version), set()).add(row["command"])
    return rules


def rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def compared(purpose: str, version: str, there: Iterable[str], here: Iterable[str]) -> Iterable[Difference]:
    """Leave out what both have; what is left on both sides is one thing in the place of another."""
    lost, gained = set(there), set(here)
    for command in sorted(lost):
        same = EQUIVALENT.get(command, set()) & gained
        if same:
            lost.discard(command)
            gained -= same
    if len(lost) == len(gained) == 1:
        return [Difference(purpose, version, *lost, *gained)]
    return [
        *(Difference(purpose, version, command, "") for command in lost),
        *(Difference(purpose, version, "", command) for command in gained),
    ]


def table() -> Sequence[Sequence[str]]:
    section = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_table_of_the_document_has_these_rows_each_with_a_reason() -> None:
    assert {*ROWS, *HOW} == {formats for formats, *_ in table()}
    assert all(len(row) == 4 and all(row) for row in table())


def test_every_difference_is_in_one_row_of_the_table(differences: frozenset[Difference]) -> None:
    claims = [claim for row in ROWS.values() for claim in row]

    claimed = {difference: sum(claim.covers(difference) for claim in claims) for difference in differences}

    assert {} == {difference: times for difference, times in claimed.items() if times != 1}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_table_says_what_is_so(row: str, differences: frozenset[Difference]) -> None:
    empty = [claim for claim in ROWS[row] if not any(claim.covers(difference) for difference in differences)]
    named = {version for claim in ROWS[row] for version in claim.versions.split()}
    found = {difference.version for difference in differences for claim in ROWS[row] if claim.covers(difference)}

    assert [] == empty
    assert named <= found


@pytest.mark.parametrize("row", HOW)
def test_a_row_about_how_a_command_works_says_what_is_so(row: str, registry: Registry) -> None:
    assert HOW[row](registry)
