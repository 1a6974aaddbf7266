"""Maildirs: attachments of messages become files of their own, and each maildir one mbox.

A maildir is a folder with the folders `cur` and `new`; a file in one of these is a message.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from ingestd.derivatives import MAILDIR, Maker, NotMade, Order, outermost, recorded, taken_for_mail
from ingestd.fpr.records import FormatVersion, Purpose
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.metadata.mail import ATTACHMENTS, FOLDERS, Attachment, UnreadableMailError, attachments, no_maildir
from ingestd.oais import DIP, Directory, Facts, File, FileUse, TransferType, Warning_, escape_name, safe_name
from ingestd.premis import Digest, DigestAlgorithm, Event, EventType, now
from ingestd.sources.contents import short

UNREAD = "content.mail_unread"
LINK = "Make an mbox of each maildir"
_LOSS = "no maildir has an mbox"
_PLACE = "mail_attachments"


async def extract_mail_attachments(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Put the attachments of all messages into `objects/attachments/<message's path>/`, as Archivematica does.

    Each is an original with an event `unpacking`, and the message stays as it is. A message that cannot be taken apart
    is a warning. Only transfers of the type `maildir` are looked at: one without a maildir is refused
    (`content.structure_invalid`).
    """
    if task.package.type is not TransferType.MAILDIR:
        return
    if not task.cursor and not [one async for one in _maildirs(task)]:
        raise no_maildir()
    place = (await task.history.facts()).get(_PLACE, "") or await _free_place(task)
    yield Outcome(facts=Facts(package={_PLACE: place}), cursor=task.cursor)
    async for files in task.history.files(under="objects", uses=(FileUse.ORIGINAL,), after_row=task.cursor):
        for file in files:
            if PurePosixPath(file.original).parent.name in FOLDERS and not file.path.startswith(f"{place}/"):
                extracted = _Extracted(task, file, f"{place}/{file.path.removeprefix('objects/')}")
                yield await asyncio.to_thread(extracted.take, services.settings.digest_algorithm)
        yield Outcome(cursor=files[-1].row)


async def _maildirs(task: Task) -> AsyncIterator[Directory]:
    """The maildirs that are in no other one, as they were received: the attachments' folders look like some."""
    place = (await task.history.facts()).get(_PLACE, "")
    async for directories in task.history.directories(under="objects", by_path=True):
        for directory in directories:
            if PurePosixPath(directory.path).name == FOLDERS[0] and not (
                place and directory.path.startswith(f"{place}/")
            ):
                parent = str(PurePosixPath(directory.path).parent)
                outer = await asyncio.to_thread(outermost, task.root, PurePosixPath(parent))
                if outer == parent:
                    received = str(PurePosixPath(directory.original).parent)
                    yield (await task.history.directory_received_as(received)) or replace(directory, path=parent)


async def _free_place(task: Task) -> str:
    number = 0
    while await task.history.taken([place := f"{ATTACHMENTS}{f'_{number}' if number else ''}"]):
        number += 1
    return place


@dataclass(slots=True)
class _Extracted:
    """One message's attachments on their way into `folder`. Written again, they are the same files."""

    task: Task
    message: File
    folder: str
    files: list[File] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)

    def take(self, algorithm: DigestAlgorithm) -> Outcome:
        """Write all of them; blocks."""
        try:
            for attachment in attachments(self.task.at(self.message.path)):
                self._write(attachment, algorithm)
        except UnreadableMailError as error:
            detail = f"its attachments could not be taken out: {error}"
            self.warnings.append(Warning_(code=UNREAD, detail=detail, path=escape_name(self.message.path)))
        events = [event for file in self.files for event in self._events(file)]
        directories = list(self._directories()) if self.files else []
        return Outcome(
            facts=Facts(directories=directories, files=self.files, events=events, warnings=self.warnings),
            cursor=self.task.cursor,
        )

    def _write(self, attachment: Attachment, algorithm: DigestAlgorithm) -> None:
        name = self._name(attachment.name)
        path = self.task.at(f"{self.folder}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(attachment.content)
        original = f"{self.message.original}/{name}"
        value = hashlib.new(algorithm.value, attachment.content, usedforsecurity=False).hexdigest()
        self.files.append(
            File(
                id=uuid.uuid5(self.task.package.id, f"file:{escape_name(original)}"),
                path=f"{self.folder}/{name}",
                original=original,
                size_bytes=len(attachment.content),
                digest=Digest(algorithm=algorithm, value=value, calculated_at=now()),
                modified_at=self.message.modified_at,
                label="" if name == attachment.name else escape_name(attachment.name),
            )
        )

    def _name(self, given: str) -> str:
        """A safe name that no other attachment of the message has."""
        name = short(safe_name(given.replace("\\", "/").rpartition("/")[2] or "attachment").lstrip(".~"), room=8)
        name = name.rstrip("~") or "attachment"
        taken = {PurePosixPath(file.path).name for file in self.files}
        stem, dot, suffix = name.partition(".")
        number, free = 0, name
        while free in taken:
            number += 1
            free = f"{stem}_{number}{dot}{suffix}"
        return free

    def _directories(self) -> Iterator[Directory]:
        """The folders that attachments are in, parents first. They were not received: their names are their own."""
        parts = self.folder.split("/")
        assigns = self.task.package.processing.get("assign_uuids_to_directories", True)
        for depth in range(2, len(parts) + 1):
            path = "/".join(parts[:depth])
            id_ = uuid.uuid5(self.task.package.id, f"directory:{escape_name(path)}") if assigns else None
            yield Directory(path=path, original=path, id=id_)

    def _events(self, file: File) -> Sequence[Event]:
        detail = f"Unpacked from: %transferDirectory%{escape_name(self.message.original)} ({self.message.id})"
        unpacked = Event(object=file.id, type=EventType.UNPACKING, at=now(), detail=detail)
        if file.digest is None:
            return [unpacked]
        module = f'program="python"; module="hashlib.{file.digest.algorithm}()"'
        digested, at = EventType.MESSAGE_DIGEST_CALCULATION, file.digest.calculated_at
        return [unpacked, Event(object=file.id, type=digested, at=at, detail=module, note=file.digest.value)]


# --- mbox ------------------------------------------------------------------------------------------------------------


async def normalize_maildirs(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Make an mbox of every maildir with all that is in it, by the registry's rule for maildirs.

    It goes beside the maildir, or with option `purpose` = `access` into the DIP.
    """
    purpose = Purpose(task.options.get("purpose", "preservation"))
    # In a reingest, the mbox beside the maildir is what says that it is one.
    if task.package.type is not TransferType.MAILDIR and (not task.package.reingest or purpose is Purpose.PRESERVATION):
        return
    maker = Maker.of(
        services.settings, services.commands, package=task.package, folder=task.folder, root=task.root, files=1
    )
    async for directory in _maildirs(task):
        if await asyncio.to_thread(taken_for_mail, task.package, task.root, directory.path):
            yield await _mbox(task, services, maker, directory, purpose)


async def _mbox(task: Task, services: Services, maker: Maker, directory: Directory, purpose: Purpose) -> Outcome:
    """Make one mbox. It is no file's derivative, so the event that made it is its own, and names the maildir."""
    size = (await task.history.totals(under=directory.path)).bytes
    id_ = directory.id or uuid.uuid5(task.package.id, f"directory:{escape_name(directory.original)}")
    whole = File(id=id_, path=directory.path, original=directory.original, size_bytes=size)
    version = services.registry.find(FormatVersion, MAILDIR)
    rule = next(iter(services.registry.rules(purpose, version)), None)
    command = services.registry.command(rule.command) if rule else None
    if rule is None or command is None:
        return Outcome()
    use, place = _place_of(directory, purpose)
    order = Order(
        file=whole,
        path=task.at(directory.path),
        purpose=purpose,
        command=command,
        folder=task.at(place),
        rule=rule.id,
    )
    made = await maker.make(order)
    if isinstance(made, NotMade):
        return Outcome(facts=Facts(warnings=[made.warning(whole, LINK, _LOSS)]))
    facts = recorded(made, f"{place}/{made.path.name}", whole, use)
    if await task.history.files_by_id([made.id]):
        return Outcome()
    event = Event(
        object=made.id,
        type=EventType.NORMALIZATION,
        at=made.at,
        detail=made.detail,
        note=f"%transferDirectory%{escape_name(directory.original)}{os.sep}",
        programs=[made.program],
    )
    return Outcome(
        facts=Facts(files=[replace(facts.file, derived_from=None)], events=[*facts.events, event]),
        tools=[ToolUse(name=made.tool, version=made.tool_version, used_for="normalization")],
    )


def _place_of(directory: Directory, purpose: Purpose) -> tuple[FileUse, str]:
    """Say what use the mbox of a maildir is of, and the folder that it goes to."""
    if purpose is Purpose.ACCESS:
        return FileUse.ACCESS, f"{DIP}/objects"
    if directory.path == "objects":
        return FileUse.PRESERVATION, directory.path
    return FileUse.PRESERVATION, str(PurePosixPath(directory.path).parent)
