"""Packages for the tests of `ingestd.mets`: a small one with everything in it, and one of any size that takes no memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ingestd.oais import Description, Directory, Extension, Facts, File, FileUse, Package
from ingestd.premis import Agent, AgentType, Digest, DigestAlgorithm, Event, EventOutcome, EventType, Format, Program
from tests.fakes import FakeHistory

AT = datetime(2026, 11, 20, 18, 57, 41, 123456, tzinfo=UTC)
AGENTS = (
    Agent(
        identifier_type="preservation system",
        identifier="ingestd-0.1.0",
        name="ingestd",
        type=AgentType.SOFTWARE,
        version="0.1.0",
    ),
    Agent(identifier_type="repository code", identifier="ORG", name="An Archive", type=AgentType.ORGANIZATION),
    Agent(identifier_type="requester", identifier="urn:test", name="urn:test", type=AgentType.REQUESTER),
)
MEDIA_XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<MediaInfo xmlns="https://mediaarea.net/mediainfo" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="https://mediaarea.net/mediainfo https://mediaarea.net/mediainfo/mediainfo_2_0.xsd">'
    "<media ref='a &amp; b'><track type=\"General\"/></media></MediaInfo>\n"
)
JPEG = Format(name="JPEG File Interchange Format", version="1.01", puid="fmt/43", mime="image/jpeg")


def identifier(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, ascii(name))


def a_package(**more: object) -> Package:
    return Package(
        id=identifier("package"),
        name="Résumé of 2026",
        created_at=AT,
        processing={},
        **more,  # type: ignore[arg-type]
    )


def a_file(path: str, **more: object) -> File:
    return File(
        path=path,
        **{  # type: ignore[arg-type]
            "id": identifier(path),
            "original": path,
            "size_bytes": len(path),
            "digest": Digest(algorithm=DigestAlgorithm.SHA256, value=f"{len(path):064x}", calculated_at=AT),
            "modified_at": AT - timedelta(days=365),
            **more,
        },
    )


SIEGFRIED, MAGICK = Program("Siegfried", "1.11"), Program("ImageMagick", "6.9.11-60")


def events_of(file: File, *types: EventType, at: datetime = AT) -> list[Event]:
    return [
        Event(
            id=identifier(f"{file.id}{number}"),
            object=file.id,
            type=kind,
            at=at + timedelta(seconds=number),
            detail=Program("Siegfried", "1.11").words(),
            outcome=EventOutcome.POSITIVE if kind is EventType.FORMAT_IDENTIFICATION else EventOutcome.NONE,
            note=f"note {number}",
            programs=[SIEGFRIED] if kind is EventType.FORMAT_IDENTIFICATION else (),
        )
        for number, kind in enumerate(types)
    ]


def a_rich_history() -> FakeHistory:
    """Originals in folders, a derivative, OCR text, metadata, submission documents, an empty folder, a removed file."""
    history = FakeHistory(agents=AGENTS)
    photo = a_file("objects/art/photo.jpg", original="objects/art/phötö.jpg", format=JPEG)
    beside = a_file("objects/art-notes.txt")
    text = a_file("objects/art/notes/a.txt", digest=None, modified_at=None, label="A label")
    tiff = a_file(
        "objects/art/photo-1.tif",
        use=FileUse.PRESERVATION,
        derived_from=photo.id,
        format=Format(name="TIFF"),
    )
    ocr = a_file("objects/metadata/OCRfiles/photo.txt", use=FileUse.TEXT_OCR, derived_from=photo.id)
    table = a_file("objects/metadata/transfers/t/metadata.csv", use=FileUse.METADATA)
    paper = a_file(
        "objects/submissionDocumentation/transfer-t/deed.pdf",
        use=FileUse.SUBMISSION_DOCUMENTATION,
    )
    removed = a_file("objects/Thumbs.db", removed=True)
    art = Directory(path="objects/art", original="objects/Ärt", id=identifier("art"))
    made = Event(
        id=identifier("normalization"),
        object=photo.id,
        type=EventType.NORMALIZATION,
        at=AT,
        note=tiff.path,
        programs=[MAGICK],
    )
    read = Event(
        id=identifier("transcription"),
        object=photo.id,
        type=EventType.TRANSCRIPTION,
        at=AT,
        outcome=EventOutcome.TRANSCRIBED,
        note=ocr.path,
    )
    ordinary = (EventType.INGESTION, EventType.MESSAGE_DIGEST_CALCULATION, EventType.FORMAT_IDENTIFICATION)
    history.record(
        Facts(
            directories=[
                art,
                Directory(path="objects/art/notes", original="objects/Ärt/notes", id=identifier("notes")),
                Directory(path="objects/art-notes", original="objects/art-notes", id=identifier("empty")),
                Directory(path="objects/metadata", original="objects/metadata"),
            ],
            files=[photo, beside, text, tiff, ocr, table, paper, removed],
            events=[
                *events_of(photo, *ordinary, EventType.FILENAME_CHANGE),
                *events_of(beside, *ordinary),
                *events_of(text, *ordinary),
                *events_of(tiff, EventType.CREATION),
                *events_of(ocr, EventType.CREATION),
                *events_of(table, EventType.INGESTION),
                *events_of(paper, EventType.INGESTION),
                *events_of(removed, EventType.FILE_REMOVED),
                made,
                read,
            ],
            extensions=[
                Extension(file=photo.id, tool="MediaInfo", xml=MEDIA_XML),
                Extension(file=photo.id, tool="ffprobe", xml="<ffprobe><format size='1'/></ffprobe>"),
            ],
            descriptions=[
                Description(target=photo.id, kind="DC", pairs=[("dc.title", "Phötö <1>"), ("dcterms.created", "1999")]),
                Description(target=photo.id, kind="CUSTOM", pairs=[("Reading Room", "3 & 4"), ("shelf", "")]),
                Description(target=art.id or uuid.UUID(int=0), kind="DC", pairs=[("dc.title", "Art")]),
                Description(target=a_package().id, kind="DC", pairs=[("dc.title", "All of it")]),
            ],
        )
    )
    return history


class LongHistory(FakeHistory):
    """`count` files in folders of a hundred, each with twelve events and tool output; nothing is kept in memory."""

    def __init__(self, count: int) -> None:
        super().__init__(agents=AGENTS)
        self.count = count

    async def files(
        self,
        *,
        under: str = "",
        uses: Sequence[FileUse] = (),
        by_path: bool = False,
        after_row: int = 0,
        window: int = 256,
        removed: bool = False,
    ) -> AsyncIterator[Sequence[File]]:
        if removed or (uses and FileUse.ORIGINAL not in uses):
            return
        for start in range(after_row + 1, self.count + 1, window):
            yield [_long_file(row) for row in range(start, min(start + window, self.count + 1))]

    async def directories(
        self, *, under: str = "", by_path: bool = False, after_row: int = 0, window: int = 256
    ) -> AsyncIterator[Sequence[Directory]]:
        for number in range(self.count // 100 + 1):
            path = f"objects/{number:06d}"
            yield [Directory(path=path, original=path, id=uuid.UUID(int=2**64 + number), row=number + 1)]

    async def events(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Event]]:
        return {key: [_long_event(key, number) for number in range(12)] for key in objects}

    async def extensions(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Extension]]:
        return {key: [Extension(file=key, tool="MediaInfo", xml=MEDIA_XML)] for key in files}


def _long_file(row: int) -> File:
    path = f"objects/{row // 100:06d}/file {row:08d}.jpg"
    return File(
        id=uuid.UUID(int=row),
        path=path,
        original=path,
        size_bytes=row,
        digest=Digest(algorithm=DigestAlgorithm.SHA256, value=f"{row:064x}", calculated_at=AT),
        modified_at=AT,
        format=JPEG,
        row=row,
    )


def _long_event(key: uuid.UUID, number: int) -> Event:
    return Event(
        id=uuid.UUID(int=(key.int << 64) + number),
        object=key,
        type=list(EventType)[number % 6],
        at=AT,
        detail=Program("Siegfried", "1.11").words(),
        note="a note as long as notes are, for instance a digest or a name",
    )
