from __future__ import annotations

import contextlib
import mailbox
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.access import normalize_for_access
from ingestd.handlers.maildirs import UNREAD, extract_mail_attachments, normalize_maildirs
from ingestd.handlers.names import change_object_names
from ingestd.handlers.normalization import normalize
from ingestd.handlers.reports import REPORT, write_normalization_report
from ingestd.handlers.transfer import remove_hidden_files_and_directories
from ingestd.oais import Facts, FileUse, Reingest, TransferType
from ingestd.premis import EventType, Format
from tests.normalizing import TEXT, command, rule
from tests.normalizing import bench as workshop
from tests.steps import Bench, a_package

MAIL = a_package(type=TransferType.MAILDIR)
MESSAGE = "objects/Mail/cur/1700000000.M1P1.host:2,S"
SAFE = "objects/Mail/cur/1700000000.M1P1.host_2_S"


KEPT = command("kept", "cp %fileFullName% %OUT%.txt") + rule("kept")
NO_MBOX = '[[disable]]\nkind = "rule"\nid = "preservation:archivematica-maildir"\n'


def a_message(*attached: tuple[str, bytes], subject: str = "Hello") -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"] = subject, "ann@example.org"
    message.set_content("See below.\n")
    for name, content in attached:
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message


def a_maildir(message: bytes) -> dict[str, bytes]:
    return {MESSAGE: message, "objects/Mail/new/1700000001.M2P1.host": a_message(subject="New").as_bytes()}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path, package=MAIL)
    yield bench
    await bench.journal.close()


async def prepared(bench: Bench, contents: dict[str, bytes]) -> None:
    await bench.receive(contents, folders=["objects/Mail/cur", "objects/Mail/new", "objects/Mail/tmp"])
    await bench.run(change_object_names, options={"under": "objects"})


async def test_attachments_become_files_that_say_which_message_they_were_in(bench: Bench) -> None:
    inner = a_message(("deep.bin", b"deep"))
    message = a_message(("plan é.txt", b"one"), ("plan é.txt", b"two"), ("../../.evil", b"three"))
    message.add_attachment(inner)
    await prepared(bench, a_maildir(message.as_bytes()))

    await bench.run(extract_mail_attachments)

    folder = f"objects/attachments/{SAFE.removeprefix('objects/')}"
    contents = bench.contents()
    assert {f"{folder}/plan_e.txt": b"one", f"{folder}/plan_e_1.txt": b"two", f"{folder}/evil": b"three"} | {
        f"{folder}/deep.bin": b"deep"
    } == {path: content for path, content in contents.items() if path.startswith("objects/attachments/")}
    file = await bench.journal.file_at(f"{folder}/plan_e.txt")
    source = await bench.journal.file_at(SAFE)
    assert file is not None
    assert source is not None
    assert (FileUse.ORIGINAL, "plan é.txt", f"{MESSAGE}/plan_e.txt") == (file.use, file.label, file.original)
    unpacked, digested = (await bench.journal.events([file.id]))[file.id]
    assert f"Unpacked from: %transferDirectory%{MESSAGE} ({source.id})" == unpacked.detail
    assert EventType.MESSAGE_DIGEST_CALCULATION == digested.type
    assert await bench.journal.directory_received_as(folder)


async def test_messages_keep_their_flags_in_an_event(bench: Bench) -> None:
    await prepared(bench, a_maildir(a_message().as_bytes()))

    file = await bench.journal.file_at(SAFE)

    assert file is not None
    assert MESSAGE == file.original
    (event,) = (await bench.journal.events([file.id]))[file.id]
    assert (EventType.FILENAME_CHANGE, True) == (event.type, MESSAGE in event.note)


async def test_a_run_after_a_crash_makes_the_same_files_once(bench: Bench) -> None:
    await prepared(bench, a_maildir(a_message(("a.txt", b"a")).as_bytes()))

    await bench.run(extract_mail_attachments, stop_after=1)
    await bench.run(extract_mail_attachments)

    assert 1 == len(await bench.files(under="objects/attachments"))


async def test_a_folder_of_that_name_that_was_received_is_left_alone(bench: Bench) -> None:
    mail = a_maildir(a_message(("a.txt", b"a")).as_bytes())
    await prepared(bench, {**mail, "objects/attachments/mine.txt": b"mine"})

    await bench.run(extract_mail_attachments)

    assert ["objects/attachments/mine.txt"] == await bench.paths(under="objects/attachments")
    assert 1 == len(await bench.paths(under="objects/attachments_1"))


async def test_a_message_of_endless_depth_is_a_warning_and_stays(bench: Bench) -> None:
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(2000))
    await prepared(bench, a_maildir(deep))

    await bench.run(extract_mail_attachments)

    warnings = [(one.code, one.path) async for window in bench.journal.warnings() for one in window]
    assert [(UNREAD, SAFE)] == warnings
    assert SAFE in bench.on_disk()


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"no headers", b"Content-Type: a;b=\xff\n\n\xff"])
async def test_what_is_hardly_a_message_has_no_attachments(bench: Bench, content: bytes) -> None:
    await prepared(bench, a_maildir(content))

    await bench.run(extract_mail_attachments)

    assert not await bench.files(under="objects/attachments")


async def test_a_transfer_without_a_maildir_is_refused(bench: Bench) -> None:
    await bench.receive({"objects/cur/a": b"a"})

    with pytest.raises(ContentError) as raised:
        await bench.run(extract_mail_attachments)

    assert raised.value.code is Code.CONTENT_STRUCTURE_INVALID


async def test_other_transfers_are_left_alone(bench: Bench) -> None:
    await prepared(bench, a_maildir(a_message(("a.txt", b"a")).as_bytes()))

    await bench.run(extract_mail_attachments, package=a_package())

    assert not await bench.files(under="objects/attachments")


async def test_folders_within_a_maildir_are_not_hidden(bench: Bench) -> None:
    received = {
        "Mail/cur/1": b"1",
        "Mail/new/2": b"2",
        "Mail/.Sent/cur/3": b"3",
        "Mail/.Sent/cur/.4": b"4",
        ".git/config": b"5",
    }
    await bench.receive(received)

    await bench.run(remove_hidden_files_and_directories)

    assert ["Mail/.Sent/cur/3", "Mail/cur/1", "Mail/new/2"] == await bench.paths()
    assert ["Mail/.Sent/cur/3", "Mail/cur/1", "Mail/new/2"] == bench.on_disk()
    assert await bench.journal.directory_received_as("Mail/.Sent")


@pytest.mark.tool
async def test_a_maildir_gets_an_mbox_of_all_its_messages_beside_it(tmp_path: Path) -> None:
    async with workshop(tmp_path) as made:
        made.package = MAIL
        message = a_message(("a.txt", b"a")).as_bytes()
        await prepared(
            made, {**a_maildir(message), "objects/Mail/.Sent/cur/3": message, "objects/Mail/.Sent/new/4": b"A: b\n\n"}
        )
        await made.run(extract_mail_attachments)

        await made.run(normalize_maildirs)
        await made.run(normalize_maildirs)

        (mbox,) = await made.files(uses=(FileUse.PRESERVATION,))
        assert mbox.path.startswith("objects/Mail-")
        with contextlib.closing(mailbox.mbox(made.root / mbox.path)) as messages:
            assert 4 == len(messages)
        (normalized,) = [
            event for event in (await made.journal.events([mbox.id]))[mbox.id] if event.type == EventType.NORMALIZATION
        ]
        assert "%transferDirectory%objects/Mail/" == normalized.note


async def test_with_access_copies_the_dip_gets_an_mbox_too(tmp_path: Path) -> None:
    async with workshop(tmp_path) as made:
        made.package = MAIL
        await prepared(made, a_maildir(a_message().as_bytes()))

        await made.run(normalize_maildirs, options={"purpose": "access"})

        (mbox,) = await made.files(uses=(FileUse.ACCESS,))
        assert mbox.path.startswith("DIP/objects/")
        assert mbox.path.endswith("-Mail.mbox")
        with contextlib.closing(mailbox.mbox(made.root / mbox.path)) as messages:
            assert 2 == len(messages)


async def test_messages_are_in_the_dip_with_their_mbox_alone(tmp_path: Path) -> None:
    async with workshop(tmp_path) as made:
        made.package = replace(MAIL, processing={**MAIL.processing, "normalize_for_access": True})
        await made.receive(
            {**a_maildir(a_message().as_bytes()), "objects/notes.txt": b"x", "objects/photos/new/1.txt": b"y"}
        )

        await made.run(normalize_maildirs, options={"purpose": "access"})
        await made.run_files(normalize_for_access, under="objects")
        await made.run(write_normalization_report)

        copies = await made.files(uses=(FileUse.ACCESS,))
        assert ["1.txt", "Mail.mbox", "notes.txt"] == sorted(file.path.rpartition("-")[2] for file in copies)
        said = [line for line in (made.root / REPORT).read_text().splitlines() if ",access," in line]
        assert 2 == sum(",with its maildir," in line for line in said)


@pytest.mark.parametrize(
    ("box", "copies"),
    [
        ("objects/Mail-5c1d.mbox", ["Mail-5c1d.mbox", "Mail.mbox"]),
        ("objects/other.mbox", ["New.host", "host_2_S", "other.mbox"]),
    ],
)
async def test_in_a_reingest_the_mbox_beside_a_maildir_says_that_it_is_one(
    tmp_path: Path, box: str, copies: list[str]
) -> None:
    async with workshop(tmp_path) as made:
        made.package = replace(MAIL, type=TransferType.REINGEST, reingest=Reingest.PARTIAL)
        message = a_message().as_bytes()
        await prepared(made, {MESSAGE: message, "objects/Mail/new/1.New.host": message, box: b"From - \n"})

        await made.run(normalize_maildirs)
        await made.run(normalize_maildirs, options={"purpose": "access"})
        await made.run_files(normalize_for_access, under="objects")

        made_now = await made.files(uses=(FileUse.ACCESS, FileUse.PRESERVATION))
        assert copies == sorted(re.sub(r".*/[0-9a-f-]{36}-(?:\d+\.)?(?:M1P1\.)?", "", file.path) for file in made_now)


@pytest.mark.parametrize(("site", "copies"), [(KEPT, 0), (KEPT + NO_MBOX, 2)])
async def test_messages_have_no_copy_but_the_mbox_of_the_whole(tmp_path: Path, site: str, copies: int) -> None:
    async with workshop(tmp_path, site) as made:
        made.package = MAIL
        await made.receive({**a_maildir(b"A: b\n\nc"), "objects/Mail/cur.txt": b"x"})
        files = [replace(file, format=Format(name="Text", puid=TEXT)) for file in await made.files()]
        await made.journal.record(Facts(files=files))

        await made.run_files(normalize)
        await made.run(write_normalization_report)

        assert copies + 1 == len(await made.files(uses=(FileUse.PRESERVATION,)))
        said = (made.root / REPORT).read_text()
        assert 2 - copies == said.count(",with its maildir,")
        assert copies + 1 == said.count(",normalized,")
