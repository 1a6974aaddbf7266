"""Derivatives: one new file that a command of the registry makes of a file, proved before it is moved to its place.

A command writes into a scratch folder of its run. What comes out is taken when the command and its verification
succeeded and it is one file within the budget; then it is moved to its place in one step, with a receipt in the scratch
folder. Its identifier, and so its name, follow from the file, the command and the purpose: after a crash, one that is
whole by its receipt is not made again, since a film may have taken hours, and any other trace is replaced.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Self

from ingestd.config import NormalizationSettings, Settings
from ingestd.derivatives.batches import batches
from ingestd.derivatives.records import FAILED, STEM_CHARACTERS, Made, NotMade, Order
from ingestd.derivatives.renewing import put_back, set_aside
from ingestd.errors import Code, ResourceError, ToolError
from ingestd.fixity import digest_now
from ingestd.fpr.commands import CommandRun, Commands
from ingestd.fpr.records import Command, Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.fpr.substitution import fill
from ingestd.fpr.variables import values_for
from ingestd.oais import File, Package
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.together import side_by_side
from ingestd.tools.run import Limits

_TOLD_CHARACTERS = 300
_NO_SPACE = "No space left on device"
_LEAST_FREE_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Maker:
    """Makes the derivatives of one package.

    `root` is the transfer, `scratch` a folder on the same file system. No warning names `private`, our own folder.
    `threads` is how many each program may use.
    """

    package: Package
    root: Path
    scratch: Path
    private: Path
    commands: Commands
    limits: Limits
    budget: NormalizationSettings
    algorithm: DigestAlgorithm
    threads: int = 1

    @classmethod
    def of(
        cls, settings: Settings, commands: Commands, *, package: Package, folder: Path, root: Path, files: int
    ) -> Self:
        """Make ready for a window of so many files: a few may share the processors that many would keep busy.

        `folder` is the package's working folder.
        """
        return cls(
            package=package,
            root=root,
            scratch=folder / "scratch" / "derivatives",
            private=settings.data_dir,
            commands=commands,
            limits=commands.limits,
            budget=settings.normalization,
            algorithm=settings.digest_algorithm,
            threads=max(1, settings.tools.processes // max(1, files)),
        )

    async def make(self, order: Order) -> Made | NotMade:
        """Make one derivative, or find it made by a run that was interrupted; other traces of that run are removed, and
        what a failing one leaves. What the order replaces is set aside, and put back where nothing is made. Raises
        `ResourceError` where the disk is full: that is no fault of the file.
        """
        (answer,) = await self._make_anew([order])
        return answer

    async def make_all(self, orders: Sequence[Order], *, at_once: int) -> Sequence[Made | NotMade]:
        """Make derivatives as `make` does, by `at_once` runs at a time; the answers are in the order of the orders.

        A command that takes several files is run for several; one that it fails on costs the others nothing but time.
        """
        resolve = self.commands.resolve
        numbers = batches(orders, resolve=resolve, allowed_bytes=self.allowed_bytes, at_once=at_once)
        made = await side_by_side(self._make_anew, [[orders[n] for n in some] for some in numbers], at_once=at_once)
        answers = dict(zip(chain(*numbers), chain(*made), strict=True))
        return [answers[number] for number in range(len(orders))]

    async def _make_anew(self, orders: Sequence[Order]) -> Sequence[Made | NotMade]:
        await asyncio.to_thread(set_aside, orders, self.root, self.scratch)
        answers = await self._make_together(orders)
        bad = [order for order, answer in zip(orders, answers, strict=True) if isinstance(answer, NotMade)]
        await asyncio.to_thread(put_back, bad, self.root, self.scratch)
        return answers

    async def _make_together(self, orders: Sequence[Order]) -> Sequence[Made | NotMade]:
        """Make by one run what was not made before; what that does not make by smaller runs, and at last each alone."""
        found = await asyncio.to_thread(lambda: [self._found(order) for order in orders])
        left = [order for order, made in zip(orders, found, strict=True) if made is None]
        answers = iter(await self._retried(left, await self._run(left)) if left else ())
        return [made or next(answers) for made in found]

    async def _retried(self, orders: Sequence[Order], answers: Sequence[Made | NotMade]) -> Sequence[Made | NotMade]:
        """Give the answers, anew for what was not made in the company of others."""
        bad = [order for order, answer in zip(orders, answers, strict=True) if isinstance(answer, NotMade)]
        if len(orders) == 1 or not bad or _for_all(answers):
            return answers
        # A file that breaks the run off is found by halves. One that meets a limit would meet it in each of them.
        size = math.ceil(len(bad) / 2) if len(bad) == len(orders) and _failed(answers) else 1
        smaller = [bad[at : at + size] for at in range(0, len(bad), size)]
        anew = iter([answer for some in smaller for answer in await self._make_together(some)])
        return [answer if isinstance(answer, Made) else next(anew) for answer in answers]

    async def _run(self, orders: Sequence[Order]) -> Sequence[Made | NotMade]:
        """Run the command of the orders, once."""
        command = self.commands.resolve(orders[0].command)
        if command is None:
            return [self._not_installed(order.command) for order in orders]
        tool = self._tool_name(command)
        work = {self.id_of(order, command): order for order in orders}
        folders = {id_: self.scratch / str(id_) for id_ in work}
        await asyncio.to_thread(_fresh, folders.values())
        try:
            each = [self._variables(order, id_, folders[id_]) for id_, order in work.items()]
            limits = self._limits(orders[0].file)
            runs = await self.commands.run_together(command, each, purpose=orders[0].purpose, limits=limits)
            return [
                await asyncio.to_thread(self._judge, order, id_, folders[id_], done)
                for (id_, order), done in zip(work.items(), runs, strict=True)
            ]
        except ToolError as error:
            missing = error.code is Code.TOOL_NOT_INSTALLED
            return [NotMade(code=error.code, detail=error.detail, tool=tool, for_all=missing) for _ in orders]
        finally:
            await asyncio.to_thread(_remove, folders.values())

    def id_of(self, order: Order, command: Command) -> uuid.UUID:
        """Give the identifier of what `command` makes of the order's file: the same one whenever this request makes it,
        and another one in each version of an AIP.
        """
        version = f":{self.package.request_id}" if self.package.reingest else ""
        return uuid.uuid5(order.file.id, f"{order.purpose}:{command.id}{version}")

    def place(self, order: Order, command: Command) -> Path:
        """Say where the derivative of an order comes to be when `command` makes it."""
        id_ = self.id_of(order, command)
        values = self._variables(order, id_, self.scratch / str(id_))
        suffix = PurePosixPath(fill(command.output_location, values)).suffix
        return order.folder / f"{''.join(_name(order, id_))}{suffix}"

    def candidates(self, command: Command) -> Iterator[Command]:
        """Give a command and those that may stand in for it."""
        seen: set[str] = set()
        at: Command | None = command
        while at is not None and at.id not in seen:
            seen.add(at.id)
            yield at
            at = self.commands.registry.command(at.otherwise) if at.otherwise else None

    def allowed_bytes(self, file: File) -> int:
        budget = self.budget
        return min(budget.max_bytes, max(budget.ratio_from_bytes, int(budget.max_ratio * file.size_bytes)))

    def _found(self, order: Order) -> Made | None:
        """Give what is at its place and is what its receipt says; remove what is not."""
        for command in self.candidates(order.command):
            place = self.place(order, command)
            made = _redeemed(self._receipt(self.id_of(order, command)), place, command)
            if made is not None:
                return made
            place.unlink(missing_ok=True)
        return None

    def _receipt(self, id_: uuid.UUID) -> Path:
        return self.scratch / "receipts" / f"{id_}.json"

    def _limits(self, file: File) -> Limits:
        return replace(
            self.limits,
            wall_seconds=min(self.limits.wall_seconds, self.budget.seconds),
            file_bytes=min(self.limits.file_bytes, self.allowed_bytes(file)),
        )

    def _tool_name(self, command: Command) -> str:
        tool = self.commands.registry.tool(command.tool)
        return tool.name if tool else command.tool

    def _not_installed(self, command: Command) -> NotMade:
        name = self._tool_name(command)
        return NotMade(code=Code.TOOL_NOT_INSTALLED, detail=f"{name} is not installed", tool=name, for_all=True)

    def _variables(self, order: Order, id_: uuid.UUID, folder: Path) -> dict[str, str]:
        file, package = order.file, self.package
        place = PurePosixPath(file.path)
        prefix, stem, postfix = _name(order, id_)
        out = f"{folder}/{prefix}{stem}{postfix}"
        values = values_for(package, self.root, file)
        # Transcription commands write below the objects folder: for them, that is the scratch folder.
        objects = f"{folder}/" if order.purpose is Purpose.TRANSCRIPTION else values["SIPObjectsDirectory"]
        return {
            **values,
            "SIPObjectsDirectory": objects,
            # What is read may be another file than the one that it is done for, such as its preservation copy.
            "fileFullName": str(order.path),
            "inputFile": str(order.path),
            "fileDirectory": f"{order.path.parent}/",
            "fileName": place.stem[:STEM_CHARACTERS],
            "outputFileUUID": str(id_),
            "outputDirectory": f"{folder}/",
            "outputFileName": out,
            "outputFilePath": out,
            "prefix": prefix,
            "postfix": postfix,
            "language": order.language,
            "threads": str(self.threads),
        }

    def _judge(self, order: Order, id_: uuid.UUID, folder: Path, done: CommandRun) -> Made | NotMade:
        if not done.ok or done.output is None:
            self._refuse_full_disk(order.file, done)
            if self._met_the_budget(order.file, folder):
                return self._over_budget(order.file, done)
            code = done.run.error().code if done.run.stopped else FAILED
            return self._not_made(done, code, done.problem or f"{done.command.id} does not say where it writes", folder)
        found = done.output.lstat()
        if not stat.S_ISREG(found.st_mode):
            return self._not_made(done, FAILED, f"{done.tool.name} wrote something that is not a file", folder)
        if _nothing(order, found, done.output):
            empty = self._not_made(done, FAILED, f"{done.tool.name} wrote an empty file", folder)
            return replace(empty, empty=True)
        # A program that was stopped at the limit may end well all the same: it was a part of another.
        if found.st_size >= self.allowed_bytes(order.file):
            return self._over_budget(order.file, done)
        return self._taken(order, id_, done, found, done.output)

    def _taken(self, order: Order, id_: uuid.UUID, done: CommandRun, found: os.stat_result, output: Path) -> Made:
        value = digest_now(output, (self.algorithm,))[self.algorithm]
        place = self.place(order, done.command)
        made = Made(
            id=id_,
            path=place,
            size_bytes=found.st_size,
            digest=Digest(algorithm=self.algorithm, value=value, calculated_at=now()),
            modified_at=datetime.fromtimestamp(found.st_mtime, UTC),
            command=done.command,
            tool=done.tool.name,
            tool_version=done.tool_version,
            source_detail=done.event_detail,
            stderr_tail=done.run.stderr_tail,
        )
        _receive(self._receipt(id_), made)
        place.parent.mkdir(parents=True, exist_ok=True)
        output.replace(place)
        return made

    def _met_the_budget(self, file: File, folder: Path) -> bool:
        """Whether something was written up to the limit: a program within a script is stopped there, not the script."""
        allowed = self.allowed_bytes(file)
        return any(path.lstat().st_size >= allowed for path in folder.rglob("*"))

    def _over_budget(self, file: File, done: CommandRun) -> NotMade:
        most = self.allowed_bytes(file)
        problem = f"{done.tool.name} makes more of {file.size_bytes} bytes than the {most} that normalization.* allows"
        return NotMade(code=FAILED, detail=problem, tool=done.tool.name, tool_version=done.tool_version)

    def _refuse_full_disk(self, file: File, done: CommandRun) -> None:
        """What a program says of the disk is believed where there is less room than it might have needed."""
        free = shutil.disk_usage(self.scratch).free
        if free < _LEAST_FREE_BYTES or (_NO_SPACE in done.run.stderr_tail and free < self.allowed_bytes(file)):
            raise ResourceError(f"no space is left on the working disk for what {done.tool.name} writes")

    def _not_made(self, done: CommandRun, code: str, problem: str, folder: Path) -> NotMade:
        """Word what was wrong, with the last thing that the program said, and without paths of this server."""
        several = sorted(path.name for path in folder.iterdir()) if done.output is None and folder.is_dir() else []
        if len(several) > 1:
            problem = f"{problem}, but {len(several)} others ({several[0]}, …)"
        said = done.verification.run.stderr_tail if done.verification else done.run.stderr_tail
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        detail = f"{problem}: {lines[-1]}" if lines else problem
        for private in (self.private, self.root.parent):
            detail = re.sub(rf"{re.escape(str(private))}/(?:[^\s'\":]*/)?", "", detail)
        return NotMade(
            code=code,
            detail=detail[:_TOLD_CHARACTERS],
            tool=done.tool.name,
            tool_version=done.tool_version,
            stderr_tail=done.run.stderr_tail,
        )


def rule_for(registry: Registry, purpose: Purpose, file: File) -> Rule | None:
    """Give the rule that is followed for a file: the first one of its format."""
    return next(iter(registry.choose(purpose, registry.version_of(file.format))), None)


def _name(order: Order, id_: uuid.UUID) -> tuple[str, str, str]:
    """Give what a derivative's name is made of, as Archivematica does: prefix, stem, postfix."""
    stem = PurePosixPath(order.file.path).stem[:STEM_CHARACTERS]
    match order.purpose:
        case Purpose.ACCESS:
            return f"{order.file.id}-", stem, ""
        case Purpose.THUMBNAIL:
            return "", "", str(order.file.id)
        case Purpose.TRANSCRIPTION:
            return "", stem, f"-{order.file.id}"
        case _:
            return "", stem, f"-{id_}"


def _receive(receipt: Path, made: Made) -> None:
    """Write down what was made: everything of it that its file does not say."""
    receipt.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "digest": made.digest.value,
        "algorithm": made.digest.algorithm,
        "calculated_at": made.digest.calculated_at.isoformat(),
        "tool": made.tool,
        "tool_version": made.tool_version,
        "source_detail": made.source_detail,
        "stderr_tail": made.stderr_tail,
    }
    receipt.write_text(json.dumps(said), encoding="utf-8")


def _redeemed(receipt: Path, place: Path, command: Command) -> Made | None:
    """Give what a receipt is for if that is at its place, byte for byte."""
    try:
        said = json.loads(receipt.read_bytes())
        found = place.lstat()
        algorithm = DigestAlgorithm(said["algorithm"])
        if digest_now(place, (algorithm,))[algorithm] != said["digest"]:
            return None
    except (OSError, ValueError):
        return None
    at = datetime.fromisoformat(said["calculated_at"])
    return Made(
        id=uuid.UUID(receipt.stem),
        path=place,
        size_bytes=found.st_size,
        digest=Digest(algorithm=algorithm, value=said["digest"], calculated_at=at),
        modified_at=datetime.fromtimestamp(found.st_mtime, UTC),
        command=command,
        tool=said["tool"],
        tool_version=said["tool_version"],
        source_detail=said["source_detail"],
        stderr_tail=said["stderr_tail"],
    )


def _fresh(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _for_all(answers: Iterable[Made | NotMade]) -> bool:
    return any(isinstance(answer, NotMade) and answer.for_all for answer in answers)


def _failed(answers: Iterable[Made | NotMade]) -> bool:
    return all(isinstance(answer, NotMade) and answer.code == FAILED for answer in answers)


def _nothing(order: Order, found: os.stat_result, output: Path) -> bool:
    """Say whether a command wrote nothing of something: the copy of an empty file is empty."""
    if order.purpose is Purpose.TRANSCRIPTION:
        return _blank(output)
    return not found.st_size and bool(order.file.size_bytes)


def _blank(path: Path) -> bool:
    with path.open("rb") as text:
        return all(not chunk.strip() for chunk in iter(lambda: text.read(2**16), b""))
