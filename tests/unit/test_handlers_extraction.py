"""Extraction with real archives, disk images and programs; the history is in memory."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from ingestd.config import Settings
from ingestd.fixity import digest_now
from ingestd.fpr import Purpose, Registry
from ingestd.fpr.commands import Commands
from ingestd.fpr.identified import command_of, identify
from ingestd.handlers.extraction import extract_contents
from ingestd.handlers.transfer import remove_hidden_files_and_directories
from ingestd.job import Outcome, Services, Task
from ingestd.messages import ProcessingConfig, RequestSource
from ingestd.oais import Directory, Facts, File, Package, Warning_, escape_name, safe_name
from ingestd.premis import Digest, DigestAlgorithm, EventType, Format
from ingestd.storage import Locations
from ingestd.tools import Toolbox
from tests.fakes import FakeHistory

STAMP = "-2026-11-20T18_57_41"
PACKAGE = Package(
    id=uuid.UUID("11111111-1111-4111-8111-111111111111"),
    name="test",
    created_at=datetime(2026, 11, 20, 18, 57, 41, 123456, UTC),
    processing=ProcessingConfig().as_options(),
)


@dataclass(kw_only=True)
class Bench:
    """A package in a folder, its history, and the step that is tested."""

    task: Task
    services: Services
    history: FakeHistory

    @property
    def objects(self) -> Path:
        return self.task.root / "objects"

    async def receive(self, **contents: bytes) -> None:
        """Put files among the objects and record them as they are after identification."""
        for name, content in contents.items():
            (self.objects / name).write_bytes(content)
        await self.receive_there(contents)

    async def receive_there(self, names: Iterable[str]) -> None:
        files = [received(f"objects/{name}", self.task.root) for name in names]
        paths = [self.task.at(file.path) for file in files]
        services = self.services
        command = command_of(self.task.package.processing, services.registry)
        found = await identify(
            files, paths, command=command, commands=services.commands, siegfried=services.tools.siegfried
        )
        self.history.record(Facts(files=found.files))

    async def extract(self, *, cursor: int = 0, stop_after: int | None = None, delete: bool = False) -> list[Outcome]:
        """Run the step, and record what it tells as the engine does; stop short after some outcomes."""
        outcomes: list[Outcome] = []
        task = replace(self.task, cursor=cursor, options={"delete": str(delete)})
        steps = extract_contents(task, self.services)
        async for outcome in steps:
            self.history.record(outcome.facts)
            outcomes.append(outcome)
            if len(outcomes) == stop_after:
                break
        return outcomes

    async def files(self, *, removed: bool = False) -> dict[str, File]:
        found = {}
        async for window in self.history.files(removed=removed):
            found.update({file.path: file for file in window})
        return found

    async def directories(self) -> dict[str, Directory]:
        found = {}
        async for window in self.history.directories():
            found.update({directory.path: directory for directory in window})
        return found

    async def warnings(self) -> list[Warning_]:
        return [warning async for window in self.history.warnings() for warning in window]

    async def told(self) -> object:
        """Give everything recorded but identifiers of events and times."""
        files = {**await self.files(), **await self.files(removed=True)}
        events = await self.history.events([file.id for file in files.values()])
        return (
            {path: (file.original, file.size_bytes, file.format, file.removed) for path, file in files.items()},
            {id_: [(event.type, event.detail, event.note) for event in told] for id_, told in events.items()},
            await self.directories(),
            {(warning.code, warning.detail, warning.path) for warning in await self.warnings()},
            self.on_disk(),
        )

    def on_disk(self) -> set[str]:
        return {str(path.relative_to(self.task.root)) for path in self.objects.rglob("*")}

    async def agrees(self) -> bool:
        """Say whether the records and the folder are the same, with every digest."""
        files, directories = await self.files(), await self.directories()
        for path, file in files.items():
            assert file.digest is not None
            digest = digest_now(self.task.at(path), (DigestAlgorithm.SHA256,))[DigestAlgorithm.SHA256]
            assert (file.digest.value, file.size_bytes) == (digest, self.task.at(path).stat().st_size)
        return self.on_disk() == {*files, *directories}


def received(path: str, root: Path) -> File:
    value = digest_now(root / path, (DigestAlgorithm.SHA256,))[DigestAlgorithm.SHA256]
    return File(
        id=uuid.uuid5(PACKAGE.id, f"file:{escape_name(path)}"),
        path=path,
        original=path,
        size_bytes=(root / path).stat().st_size,
        digest=Digest(algorithm=DigestAlgorithm.SHA256, value=value, calculated_at=PACKAGE.created_at),
    )


Make = Callable[..., Bench]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
async def make(tmp_path: Path, registry: Registry) -> AsyncIterator[Make]:
    """Make benches; all on one set of tools."""
    settings = Settings(data_dir=tmp_path / "data")
    async with Toolbox(settings) as tools:

        def one(name: str = "package", *, processing: dict[str, bool] | None = None, **unpack: float) -> Bench:
            folder = tmp_path / "data" / name
            (folder / "transfer" / "objects").mkdir(parents=True)
            history = FakeHistory()
            limited = settings.model_copy(update={"unpack": settings.unpack.model_copy(update=unpack)})
            task = Task(
                package=replace(PACKAGE, processing={**PACKAGE.processing, **(processing or {})}),
                folder=folder,
                root=folder / "transfer",
                history=history,
                source=RequestSource(location="/nowhere"),
                target="primary",
            )
            locations = Locations.open({"primary": (tmp_path / "aips").as_uri()}, "primary")
            commands = Commands(registry, tools.pool, tools.pool.home())
            services = Services(
                settings=limited, tools=tools, registry=registry, commands=commands, locations=locations
            )
            return Bench(task=task, services=services, history=history)

        yield one


def zipped(**contents: bytes) -> bytes:
    return zip_of(contents)


def zip_of(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(contents: dict[str, bytes | None], mode: str = "w") -> bytes:
    """Make a tar; None stands for a directory. Names are given as `os.fsdecode` gives them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, encoding="utf-8", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def rarred(name: str, content: bytes) -> bytes:
    """Make a RAR 2.9 archive of one stored file: there is no free program that does."""

    def block(kind: int, flags: int, body: bytes) -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    size, raw = len(content), name.encode()
    entry = struct.pack("<IIBIIBBHI", size, size, 3, zlib.crc32(content), 0x5B210000, 20, 0x30, len(raw), 0o100644)
    return (
        b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6)) + block(0x74, 0x8000, entry + raw) + content
        + block(0x7B, 0x4000, b"")
    )  # fmt: skip


def needs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*argv: str, cwd: Path) -> None:
    subprocess.run(argv, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


async def test_an_archive_is_unpacked_beside_itself_and_everything_is_told(make: Make) -> None:
    bench = make()
    await bench.receive(**{"x.zip": zip_of({"folder/a.txt": b"one", "folder/b.txt": b"two"})})

    await bench.extract()

    files = await bench.files()
    inner = files[f"objects/x.zip{STAMP}/folder/a.txt"]
    archive = files["objects/x.zip"]
    events = (await bench.history.events([inner.id]))[inner.id]
    assert inner.original == "objects/x.zip/folder/a.txt"
    assert inner.format is not None
    assert inner.format.puid == "x-fmt/111"
    assert [EventType.UNPACKING, EventType.MESSAGE_DIGEST_CALCULATION, EventType.FORMAT_IDENTIFICATION] == [
        event.type for event in events
    ]
    assert f"Unpacked from: %transferDirectory%objects/x.zip ({archive.id})" == events[0].detail
    assert inner.digest is not None
    assert inner.digest.value == events[1].note
    assert await bench.agrees()
    assert await bench.warnings() == []


async def test_archives_within_archives_are_unpacked_to_the_innermost(make: Make) -> None:
    bench = make()
    innermost = zip_of({"core.txt": b"core"})
    middle = tarred({"dir/in.zip": innermost}, "w:gz")
    await bench.receive(**{"out.zip": zip_of({"mid.tar.gz": middle}), "plain.txt": b"plain"})

    await bench.extract()

    core = f"objects/out.zip{STAMP}/mid.tar.gz{STAMP}/dir/in.zip{STAMP}/core.txt"
    assert (await bench.files())[core].original == "objects/out.zip/mid.tar.gz/dir/in.zip/core.txt"
    assert await bench.agrees()


async def test_more_nesting_than_allowed_is_left_as_it_is_with_a_warning(make: Make) -> None:
    bench = make(max_nesting=2)
    content = zip_of({"core.txt": b"core"})
    for number in range(3):
        content = zip_of({f"n{number}.zip": content})
    await bench.receive(**{"x.zip": content})

    await bench.extract()

    [warning] = await bench.warnings()
    assert "content.archive_bomb" == warning.code
    assert warning.path == f"objects/x.zip{STAMP}/n2.zip{STAMP}/n1.zip"
    assert await bench.agrees()


async def unpacked_by(bench: Bench, file: File) -> list[str]:
    """The programs that unpacked a file, each of which says its version."""
    event = next(one for one in (await bench.history.events([file.id]))[file.id] if one.type is EventType.UNPACKING)
    assert all(program.version for program in event.programs)
    return [program.name for program in event.programs]


@pytest.mark.parametrize("kind", ["7z", "tar", "gz", "bz2", "tar.xz"])
async def test_archives_of_many_kinds_are_unpacked(make: Make, tmp_path: Path, kind: str) -> None:
    needs("7z", "gzip", "bzip2", "xz")
    bench = make()
    (tmp_path / "a.txt").write_text("hello\n" * 100)
    argv = {
        "7z": ["7z", "a", "x.7z", "a.txt"],
        "tar": ["tar", "-cf", "x.tar", "a.txt"],
        "gz": ["sh", "-c", "gzip -c a.txt > x.gz"],
        "bz2": ["sh", "-c", "bzip2 -c a.txt > x.bz2"],
        "tar.xz": ["tar", "-cJf", "x.tar.xz", "a.txt"],
    }[kind]
    run(*argv, cwd=tmp_path)
    await bench.receive(**{f"x.{kind}": (tmp_path / f"x.{kind}").read_bytes()})

    await bench.extract()

    inner = [file for path, file in (await bench.files()).items() if STAMP in path]
    assert ["hello\n" * 100] == [bench.task.at(file.path).read_text() for file in inner]
    assert ([] if "tar" in kind else ["7-Zip"]) == await unpacked_by(bench, inner[0])
    assert await bench.agrees()


async def test_a_rar_is_unpacked(make: Make) -> None:
    bench = make()
    await bench.receive(**{"x.rar": rarred("a.txt", b"stored")})

    await bench.extract()

    inner = (await bench.files())[f"objects/x.rar{STAMP}/a.txt"]
    assert b"stored" == bench.task.at(inner.path).read_bytes()
    assert ["libarchive"] == await unpacked_by(bench, inner)
    assert await bench.agrees()


async def test_names_of_any_bytes_become_safe_and_are_kept_as_originals(make: Make) -> None:
    bench = make()
    names = [b"caf\xe9.txt", "café.txt".encode(), b"a b", b"a_b", b"a&b", b"d\xff/new\nline", b"d&/x", b"d_/y", b"%41"]
    await bench.receive(**{"x.tar": tarred({os.fsdecode(name): name for name in names})})

    await bench.extract()

    files = {file.original: file for path, file in (await bench.files()).items() if STAMP in path}
    assert {f"objects/x.tar/{os.fsdecode(name)}" for name in names} == set(files)
    assert all(safe_name(part) == part for file in files.values() for part in PurePosixPath(file.path).parts)
    assert files["objects/x.tar/a_b"].path == f"objects/x.tar{STAMP}/a_b"
    events = await bench.history.events([file.id for file in files.values()])
    changed = {o for o, file in files.items() for e in events[file.id] if e.type is EventType.FILENAME_CHANGE}
    assert {f"objects/x.tar/{os.fsdecode(name)}" for name in names if name not in (b"a_b", b"d_/y")} == changed
    note = next(e.note for e in events[files["objects/x.tar/a b"].id] if e.type is EventType.FILENAME_CHANGE)
    assert 'Original name="%transferDirectory%objects/x.tar/a b"; ' in note
    assert await bench.agrees()


async def test_empty_directories_are_recorded_and_get_uuids(make: Make) -> None:
    bench = make()
    await bench.receive(**{"x.tar": tarred({"full/a.txt": b"a", "empty": None, "full/none": None})})

    await bench.extract()

    directories = await bench.directories()
    assert {
        f"objects/x.tar{STAMP}": "objects/x.tar",
        f"objects/x.tar{STAMP}/empty": "objects/x.tar/empty",
        f"objects/x.tar{STAMP}/full": "objects/x.tar/full",
        f"objects/x.tar{STAMP}/full/none": "objects/x.tar/full/none",
    } == {path: directory.original for path, directory in directories.items()}
    assert all(directory.id is not None for directory in directories.values())
    assert await bench.agrees()


async def test_directories_get_no_uuids_where_none_are_wanted(make: Make) -> None:
    bench = make(processing={"assign_uuids_to_directories": False})
    await bench.receive(**{"x.tar": tarred({"empty": None})})

    await bench.extract()

    assert [None, None] == [directory.id for directory in (await bench.directories()).values()]


async def test_hidden_and_system_files_are_removed_with_a_trace(make: Make) -> None:
    bench = make()
    contents: dict[str, bytes | None] = {
        "a.txt": b"a", ".hidden": b"h", "b~": b"b", "d/Thumbs.db": b"t", ".git/config": b"c", ".git/x/y": b"y",
    }  # fmt: skip
    await bench.receive(**{"x.tar": tarred(contents)})

    await bench.extract()

    removed = await bench.files(removed=True)
    events = await bench.history.events([file.id for file in removed.values()])
    assert {".hidden", "b~", "d/Thumbs.db", ".git/config", ".git/x/y"} == {
        file.original.removeprefix("objects/x.tar/") for file in removed.values()
    }
    assert all(
        EventType.FILE_REMOVED is told[-1].type and EventType.UNPACKING is told[0].type for told in events.values()
    )
    assert {"objects/x.tar", f"objects/x.tar{STAMP}", f"objects/x.tar{STAMP}/a.txt", f"objects/x.tar{STAMP}/d"} == (
        bench.on_disk()
    )
    assert await bench.agrees()


@pytest.mark.parametrize("name", [".a", "a~", "a.", "~a", "a", "..."])
async def test_hidden_means_the_same_as_at_the_top(make: Make, name: str) -> None:
    top, inside = make("top"), make("inside")
    await top.receive(**{name: b"x"})
    await inside.receive(**{"x.tar": tarred({name: b"x"})})

    async for outcome in remove_hidden_files_and_directories(top.task, top.services):
        top.history.record(outcome.facts)
    await inside.extract()

    assert len(await top.files(removed=True)) == len(await inside.files(removed=True))


async def test_an_archive_is_removed_after_it_was_unpacked_where_that_is_wanted(make: Make) -> None:
    bench = make()
    await bench.receive(**{"x.zip": zip_of({"in.zip": zip_of({"a.txt": b"a"})}), "bad.zip": zip_of({"a": b"a"})[:-40]})

    await bench.extract(delete=True)

    removed = await bench.files(removed=True)
    events = await bench.history.events([file.id for file in removed.values()])
    assert {"objects/x.zip", f"objects/x.zip{STAMP}/in.zip"} == set(removed)
    assert all(told[-1].type is EventType.FILE_REMOVED for told in events.values())
    assert "removed from: objects/x.zip" == events[removed["objects/x.zip"].id][-1].detail
    assert "objects/bad.zip" in await bench.files()
    assert await bench.agrees()


@pytest.mark.parametrize("kind", ["zip", "7z"])
async def test_an_archive_with_a_password_is_a_warning_that_says_so(make: Make, tmp_path: Path, kind: str) -> None:
    needs("7z")
    bench = make()
    (tmp_path / "a.txt").write_text("hello")
    run("7z", "a", "-psecret", *(["-mhe=on"] if kind == "7z" else []), f"x.{kind}", "a.txt", cwd=tmp_path)
    await bench.receive(**{f"x.{kind}": (tmp_path / f"x.{kind}").read_bytes(), "y.zip": zip_of({"a.txt": b"a"})})

    await bench.extract()

    [warning] = await bench.warnings()
    assert ("content.archive_encrypted", f"objects/x.{kind}") == (warning.code, warning.path)
    assert "encrypted" in warning.detail
    assert f"objects/y.zip{STAMP}/a.txt" in await bench.files()
    assert await bench.agrees()


async def test_a_damaged_archive_is_a_warning_that_says_so(make: Make) -> None:
    bench = make()
    good = bytearray(zip_of({"a.txt": bytes(range(256)) * 100}))
    good[60:70] = b"0123456789"
    await bench.receive(**{"x.zip": bytes(good), "y.gz": gzip.compress(os.urandom(5000))[:-1000]})

    await bench.extract()

    warnings = await bench.warnings()
    assert {"content.archive_corrupt"} == {warning.code for warning in warnings}
    assert {"objects/x.zip", "objects/y.gz"} == {warning.path for warning in warnings}
    assert all("damaged" in warning.detail for warning in warnings)
    assert await bench.agrees()


async def test_a_bomb_is_a_warning_and_leaves_nothing(make: Make) -> None:
    bench = make(max_ratio=50, ratio_from_bytes=1024 * 1024)
    await bench.receive(**{"bomb.zip": zip_of({"a": b"\0" * 20 * 2**20}), "ok.zip": zip_of({"a.txt": b"a"})})

    await bench.extract()

    [warning] = await bench.warnings()
    assert ("content.archive_bomb", "objects/bomb.zip") == (warning.code, warning.path)
    assert f"objects/ok.zip{STAMP}/a.txt" in await bench.files()
    assert await bench.agrees()


async def test_a_bomb_in_a_program_s_hands_is_stopped_too(make: Make) -> None:
    needs("7z")
    bench = make(max_ratio=50, ratio_from_bytes=1024 * 1024)
    await bench.receive(**{"bomb.gz": gzip.compress(b"\0" * 20 * 2**20)})

    await bench.extract()

    [warning] = await bench.warnings()
    assert ("content.archive_bomb", "objects/bomb.gz") == (warning.code, warning.path)
    assert await bench.agrees()


async def test_all_archives_together_unpack_to_no_more_than_is_allowed(make: Make) -> None:
    bench = make(max_bytes=25_000)
    await bench.receive(**{f"{number}.zip": zip_of({"a": os.urandom(10_000)}) for number in range(4)})

    await bench.extract()

    assert ["content.archive_bomb"] * 2 == [warning.code for warning in await bench.warnings()]
    assert 4 + 2 == len(await bench.files())
    assert await bench.agrees()


async def test_what_leads_out_of_an_archive_stays_in_it(make: Make, tmp_path: Path) -> None:
    bench = make()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        inside = tarfile.TarInfo("link/evil.txt")
        inside.size = 4
        archive.addfile(inside, io.BytesIO(b"evil"))
    climbing = zip_of({"../../evil.txt": b"evil"})
    await bench.receive(**{"link.tar": out.getvalue(), "climb.zip": climbing})

    await bench.extract()

    assert {"objects/link.tar", "objects/climb.zip"} == {warning.path for warning in await bench.warnings()}
    assert [] == [path for path in tmp_path.rglob("evil*") if path.is_file()]
    assert await bench.agrees()


async def test_files_come_out_of_a_disk_image_and_links_do_not(make: Make, tmp_path: Path) -> None:
    needs("mke2fs", "tsk_recover")
    bench = make()
    tree = tmp_path / "tree"
    (tree / "docs" / "empty").mkdir(parents=True)
    (tree / "docs" / "a b.txt").write_text("in the image")
    (tree / "link").symlink_to("/etc/passwd")
    run("truncate", "-s", "2M", "disk.img", cwd=tmp_path)
    run("/usr/sbin/mke2fs", "-q", "-t", "ext2", "-d", str(tree), "disk.img", cwd=tmp_path)
    await bench.receive(**{"disk.img": (tmp_path / "disk.img").read_bytes()})
    image = replace((await bench.files())["objects/disk.img"], format=Format(name="Raw", puid="fmt/1087"))
    bench.history.record(Facts(files=[image]))

    outcomes = await bench.extract()

    files = await bench.files()
    inner = files[f"objects/disk.img{STAMP}/docs/a_b.txt"]
    events = (await bench.history.events([inner.id]))[inner.id]
    assert "in the image" == bench.task.at(inner.path).read_text()
    assert inner.original == "objects/disk.img/docs/a b.txt"
    assert "program=" in events[0].note
    assert any(tool.used_for == "extraction" for outcome in outcomes for tool in outcome.tools)
    assert not any(path.is_symlink() for path in bench.objects.rglob("*"))
    assert await bench.agrees()


async def test_files_come_out_of_a_fat_image_by_its_signature(make: Make, tmp_path: Path) -> None:
    needs("mkfs.vfat", "mcopy", "tsk_recover")
    bench = make()
    (tmp_path / "hello.txt").write_text("in the image")
    run("truncate", "-s", "2M", "disk.img", cwd=tmp_path)
    run("/usr/sbin/mkfs.vfat", "disk.img", cwd=tmp_path)
    run("mcopy", "-i", "disk.img", "hello.txt", "::hello.txt", cwd=tmp_path)
    await bench.receive(**{"disk.img": (tmp_path / "disk.img").read_bytes()})

    await bench.extract()

    assert f"objects/disk.img{STAMP}/hello.txt" in await bench.files()
    assert await bench.agrees()


async def test_files_come_out_of_an_iso_image(make: Make, tmp_path: Path) -> None:
    needs("genisoimage", "tsk_recover")
    bench = make()
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "hello.txt").write_text("in the image")
    run("genisoimage", "-quiet", "-J", "-R", "-o", "disc.iso", "tree", cwd=tmp_path)
    await bench.receive(**{"disc.iso": (tmp_path / "disc.iso").read_bytes()})

    await bench.extract()

    texts = [bench.task.at(path).read_text() for path in await bench.files() if STAMP in path]
    assert "in the image" in texts
    assert await bench.agrees()


async def test_what_only_unar_opens_is_opened_by_unar(make: Make) -> None:
    needs("unar")
    bench = make()
    await bench.receive(**{"x.gz": gzip.compress(b"stuffed")})
    file = replace((await bench.files())["objects/x.gz"], format=Format(name="StuffIt", puid="x-fmt/269"))
    bench.history.record(Facts(files=[file]))

    outcomes = await bench.extract()

    assert b"stuffed" == bench.task.at(f"objects/x.gz{STAMP}/x").read_bytes()
    assert ["unar"] == [tool.name for outcome in outcomes for tool in outcome.tools]


async def test_a_program_that_is_missing_is_a_warning(make: Make, tmp_path: Path) -> None:
    bench = make()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "rules.toml").write_text(
        '[[tool]]\nid = "none"\nname = "No such program"\nprogram = "ingestd-no-such-program"\n'
        'version_command = ["ingestd-no-such-program"]\nversion_pattern = "(.*)"\n'
        '[[command]]\nid = "none-extract"\ntool = "none"\nusage = "extraction"\ndescription = "Nothing"\n'
        'script_type = "command"\nscript = "ingestd-no-such-program %inputFile% %outputDirectory%"\n'
        'output_location = "%outputDirectory%"\n'
        '[[rule]]\nid = "none-zip"\npurpose = "extract"\nformat = "x-fmt/263"\ncommand = "none-extract"\n'
        'replaces = "extract:x-fmt/263"\n'
    )
    registry = Registry.load([tmp_path / "site"])
    commands = Commands(registry, bench.services.pool, tmp_path)
    bench.services = replace(bench.services, registry=registry, commands=commands)
    await bench.receive(**{"x.zip": zip_of({"a.txt": b"a"})})

    await bench.extract()

    [warning] = await bench.warnings()
    assert ("tool.not_installed", "objects/x.zip") == (warning.code, warning.path)
    assert await bench.agrees()


async def test_documents_that_are_zips_are_left_alone(make: Make) -> None:
    bench = make()
    odt = io.BytesIO()
    with zipfile.ZipFile(odt, "w") as archive:
        archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        archive.writestr("META-INF/container.xml", "<container/>")
    await bench.receive(**{"book.epub": odt.getvalue()})

    await bench.extract()

    assert ["objects/book.epub"] == list(await bench.files())
    assert await bench.directories() == {}


async def test_a_folder_that_is_there_is_not_written_into(make: Make) -> None:
    bench = make()
    await bench.receive(**{"x.zip": zip_of({"a.txt": b"a"})})
    taken = f"objects/x.zip{STAMP}"
    bench.task.at(taken).mkdir()
    bench.history.record(Facts(directories=[Directory(path=taken, original=taken)]))

    await bench.extract()

    assert f"objects/x.zip_1{STAMP}/a.txt" in await bench.files()
    assert [] == list(bench.task.at(taken).iterdir())


@pytest.mark.slow
async def test_stopped_anywhere_and_run_again_it_comes_to_the_same(make: Make) -> None:
    contents = {f"f{number:03} &.txt": b"%d" % number for number in range(300)}
    sources = {
        "a.zip": zip_of({**contents, ".hidden": b"h", "in.zip": zip_of({"core.txt": b"core"})}),
        "bad.zip": zip_of({"a": b"a"})[:-40],
        "c.tar": tarred({"d": None, "d/e.txt": b"e"}),
    }
    whole = make("whole")
    await whole.receive(**sources)
    steps = await whole.extract(delete=True)

    for stop_after in range(1, len(steps)):
        bench = make(f"stopped-{stop_after}")
        await bench.receive(**sources)
        told = await bench.extract(delete=True, stop_after=stop_after)
        await bench.extract(delete=True, cursor=max(outcome.cursor for outcome in told))

        assert await whole.told() == await bench.told()
        assert await bench.agrees()
    assert len(steps) > 8


@pytest.mark.slow
async def test_killed_between_disk_and_record_it_comes_to_the_same(make: Make) -> None:
    """The last outcome before the end of the process is lost: what it tells was done on disk."""
    sources = {"a.zip": zip_of({"a b.txt": b"1", "a_b.txt": b"2", ".h": b"3"}), "c.tar": tarred({"d/e.txt": b"e"})}
    whole = make("whole")
    await whole.receive(**sources)
    steps = await whole.extract(delete=True)

    for lost in range(1, len(steps) + 1):
        bench = make(f"lost-{lost}")
        await bench.receive(**sources)
        cursor = 0
        generator = extract_contents(replace(bench.task, options={"delete": "True"}), bench.services)
        number = 0
        async for outcome in generator:
            number += 1
            if number == lost:
                break
            bench.history.record(outcome.facts)
            cursor = max(cursor, outcome.cursor)
        await bench.extract(delete=True, cursor=cursor)

        assert await whole.told() == await bench.told()
        assert await bench.agrees()


async def test_run_from_the_start_again_nothing_is_recorded_twice(make: Make) -> None:
    bench = make()
    await bench.receive(**{"a.zip": zip_of({"a b.txt": b"1", "in.zip": zip_of({"x.txt": b"x"})})})
    await bench.extract()
    first = await bench.told()

    await bench.extract()

    assert first == await bench.told()


async def test_without_formats_nothing_is_a_container(make: Make) -> None:
    bench = make()
    await bench.receive(**{"a.zip": zip_of({"a.txt": b"1"})})
    file = replace((await bench.files())["objects/a.zip"], format=None)
    bench.history.record(Facts(files=[file]))

    await bench.extract()

    assert ["objects/a.zip"] == list(await bench.files())


async def test_sample_archives_that_are_broken_are_warnings_each(make: Make, shared: Path) -> None:
    bench = make()
    folder = shared / "transfers" / "broken_package_format_types"
    names = {str(path.relative_to(folder)).replace("/", "_"): path for path in folder.rglob("*") if path.is_file()}
    await bench.receive(**{name: path.read_bytes() for name, path in names.items()})

    await bench.extract()

    warned = {warning.path for warning in await bench.warnings()}
    registry = bench.services.registry
    versions = {path: registry.version_of(file.format) for path, file in (await bench.files()).items()}
    assert {path for path, version in versions.items() if registry.rules(Purpose.EXTRACT, version)} <= warned
    assert warned
    assert await bench.agrees()


async def test_sample_documents_with_passwords_are_no_reason_to_warn(make: Make, shared: Path) -> None:
    bench = make()
    folder = shared / "transfers" / "passwordProtected" / "objects"
    await bench.receive(**{path.name: path.read_bytes() for path in folder.iterdir()})

    await bench.extract()

    assert await bench.warnings() == []
    assert not any(".doc" in path for path in await bench.directories())
    assert await bench.agrees()


async def test_sample_archives_with_odd_names_are_unpacked(make: Make, shared: Path) -> None:
    bench = make()
    folder = shared / "transfers" / "zippedWithBadNames" / "objects"
    await bench.receive(**{safe_name(path.name): path.read_bytes() for path in folder.glob("*.zip")})

    await bench.extract()

    assert await bench.warnings() == []
    assert any(STAMP in path for path in await bench.files())
    assert await bench.agrees()
