"""Sizes and message digests as events. They were calculated as the bytes came in, and are facts since."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ingestd.fixity import digest_file
from ingestd.job import Outcome, Services, Task
from ingestd.oais import Facts, File
from ingestd.premis import Digest, DigestAlgorithm, Event, EventType, now


async def assign_checksums_and_file_sizes(task: Task, services: Services) -> Outcome:
    """Say of each file when and how its message digest was calculated; calculate it where that was not done yet."""
    files = [await _with_digest(task, file, services.settings.digest_algorithm) for file in task.files]
    events = [
        Event(
            object=file.id,
            type=EventType.MESSAGE_DIGEST_CALCULATION,
            at=file.digest.calculated_at,
            detail=f'program="python"; module="hashlib.{file.digest.algorithm}()"',
            note=file.digest.value,
        )
        for file in files
        if file.digest
    ]
    return Outcome(facts=Facts(files=files, events=events))


async def _with_digest(task: Task, file: File, algorithm: DigestAlgorithm) -> File:
    if file.digest is not None:
        return file
    path = task.at(file.path)
    value = (await digest_file(path, [algorithm]))[algorithm]
    size = (await asyncio.to_thread(path.stat)).st_size
    return replace(file, size_bytes=size, digest=Digest(algorithm=algorithm, value=value, calculated_at=now()))
