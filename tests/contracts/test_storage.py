"""What holds for every archive: every layout, on every store."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import Code, DependencyError, ResourceError, StorageError, SystemFault
from ingestd.objectstore import Bucket, open_bucket
from ingestd.premis import DigestAlgorithm
from ingestd.storage import Archive, Deposit, Held, PackageKind, Stored, folder_manifest
from ingestd.storage.local import LocalStore
from ingestd.storage.objects import BucketStore, decode, encode
from ingestd.storage.ocfl import OUR_FOLDER, OcflArchive
from ingestd.storage.pairtree import PairtreeArchive, pairtree
from ingestd.storage.store import Store
from tests.objectstores import AZURE, Server, azurite, moto, rclone
from tests.sftp_server import SshServer, sftp_stores, sshd
from tests.storing import PACKAGE, SHA256, digest, make_bag, store, store_bag, write

Open = Callable[[], Archive]
LAYOUTS: dict[str, Callable[[Store], Archive]] = {"pairtree": PairtreeArchive, "ocfl": OcflArchive}


@pytest.fixture(scope="module")
def s3() -> Iterator[Server]:
    with moto() as running:
        yield running


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="module")
def plain_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One without conditional writes, which gives no parts of an object."""
    with rclone(tmp_path_factory.mktemp("rclone") / "served") as running:
        yield running


@pytest.fixture(scope="module")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(params=["local", "s3", "sftp", *AZURE])
async def medium(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Store]]:
    if request.param == "local":
        yield lambda: LocalStore(tmp_path / "store")
    elif request.param in {"s3", "azure"}:
        server: Server = request.getfixturevalue(request.param)
        url = server.url(str(uuid.uuid4()))
        yield lambda: BucketStore.open(url, server.credentials)
    else:
        async with sftp_stores(request.getfixturevalue("openssh")) as open_store:
            yield lambda: open_store(tmp_path / "store")


@pytest.fixture(params=list(LAYOUTS))
def opened(request: pytest.FixtureRequest, medium: Callable[[], Store]) -> Open:
    """Opens the archive that is tested; again, as after a crash, with every call."""
    return lambda: LAYOUTS[request.param](medium())


async def content(archive: Archive, tmp_path: Path, package: uuid.UUID = PACKAGE) -> bytes:
    held = await archive.find(package)
    assert held is not None
    return (await archive.fetch(held, tmp_path / f"fetched-{uuid.uuid4()}")).read_bytes()


async def found(archive: Archive, package: uuid.UUID = PACKAGE, kind: PackageKind = PackageKind.AIP) -> Held:
    held = await archive.find(package, kind)
    assert held is not None
    return held


async def test_what_was_stored_is_there_with_the_digest_it_was_read_back_with(opened: Open, tmp_path: Path) -> None:
    stored = await store(opened(), write(tmp_path), b"an AIP")

    assert b"an AIP" == await content(opened(), tmp_path)
    assert (SHA256, digest(b"an AIP"), 6) == (stored.algorithm, stored.digest, stored.size_bytes)
    assert stored.stored_at <= stored.verified_at
    assert stored.url == await opened().locate(PACKAGE)


async def test_what_is_not_there_is_nowhere(opened: Open) -> None:
    assert await opened().locate(PACKAGE) is None
    assert [] == [held async for held in opened().held()]


async def test_the_same_content_again_has_the_same_result(opened: Open, tmp_path: Path) -> None:
    first = await store(opened(), write(tmp_path), b"an AIP")
    second = await store(opened(), write(tmp_path), b"an AIP")

    assert (first.url, first.digest) == (second.url, second.digest)


async def test_it_can_be_done_again_when_the_source_is_gone(opened: Open, tmp_path: Path) -> None:
    source = write(tmp_path)
    first = await store(opened(), source, b"an AIP")
    source.unlink(missing_ok=True)

    assert first.url == (await store(opened(), source, b"an AIP")).url


async def test_other_content_is_a_conflict_and_nothing_is_overwritten(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP")

    with pytest.raises(StorageError) as caught:
        await store(opened(), write(tmp_path, b"another"), b"another")

    assert caught.value.code is Code.STORAGE_CONFLICT
    assert b"an AIP" == await content(opened(), tmp_path)
    assert (tmp_path / "work" / "a.7z").read_bytes() == b"another"


async def test_a_source_that_is_not_what_was_promised_is_not_stored(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store(opened(), write(tmp_path, b"damaged"), b"an AIP")

    assert caught.value.code is Code.STORAGE_VERIFY_MISMATCH
    assert await opened().locate(PACKAGE) is None
    assert digest(b"an AIP") == (await store(opened(), write(tmp_path), b"an AIP")).digest


async def test_a_source_that_never_was_is_a_failure(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store(opened(), tmp_path / "nothing", b"an AIP")

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED
    assert await opened().locate(PACKAGE) is None


async def test_two_packages_do_not_meet_and_both_are_listed(opened: Open, tmp_path: Path) -> None:
    other = uuid.UUID("01234567-89ab-4def-8123-456789abcdee")
    await store(opened(), write(tmp_path), b"an AIP")
    await store(opened(), write(tmp_path, b"another"), b"another", other)
    listed = [held async for held in opened().held()]

    assert (b"an AIP", b"another") == (await content(opened(), tmp_path), await content(opened(), tmp_path, other))
    assert {PACKAGE, other} == {held.package for held in listed}
    assert [listed[1]] == [held async for held in opened().held(listed[0].cursor)]


async def test_a_folder_is_stored_whole(opened: Open, tmp_path: Path) -> None:
    payload = {"objects/a b.txt": b"1", "objects/100%25\n.txt": b"2", "METS.xml": b"3", "objects/end.": b"4"}
    payload |= {"objects/.Sent/cur": b"5"}
    tag_digest = make_bag(tmp_path / "bag", payload)

    stored = await store_bag(opened(), tmp_path / "bag", tag_digest)
    fetched = await opened().fetch(await found(opened()), tmp_path / "out")

    assert payload == {name: (fetched / "data" / name).read_bytes() for name in payload}
    assert stored.url == (await store_bag(opened(), tmp_path / "bag", tag_digest)).url


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
async def test_a_folder_that_is_damaged_is_not_stored(opened: Open, tmp_path: Path, damage: str) -> None:
    tag_digest = make_bag(tmp_path / "bag", {"objects/a": b"1", "objects/b": b"2"})
    victim = tmp_path / "bag/data/objects/b"
    if damage == "remove":
        victim.unlink()
    else:
        (victim if damage == "change" else victim.with_name("c")).write_bytes(b"3")

    with pytest.raises(StorageError) as caught:
        await store_bag(opened(), tmp_path / "bag", tag_digest)

    assert caught.value.code is Code.STORAGE_VERIFY_MISMATCH
    assert await opened().locate(PACKAGE) is None


async def test_a_dip_that_is_a_plain_folder_lies_beside_its_aip(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP")
    dip = tmp_path / "work" / "dip"
    for name in ("METS.xml", "objects/a.jpg", "objects.txt"):
        (dip / name).parent.mkdir(parents=True, exist_ok=True)
        (dip / name).write_bytes(name.encode())
    value = folder_manifest(dip, "dip", SHA256, tmp_path / "list")

    for _ in range(2):
        await opened().store(
            dip,
            Deposit(package=PACKAGE, name="dip", size_bytes=3, algorithm=SHA256, digest=value, kind=PackageKind.DIP),
        )
    fetched = await opened().fetch(await found(opened(), kind=PackageKind.DIP), tmp_path / "out")

    assert b"objects/a.jpg" == (fetched / "objects/a.jpg").read_bytes()
    assert value == await opened().read_back(await found(opened(), kind=PackageKind.DIP))
    assert b"an AIP" == await content(opened(), tmp_path)
    assert {PackageKind.AIP, PackageKind.DIP} == {held.kind async for held in opened().held()}


async def test_damage_is_found_told_and_mended(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP")
    held = await found(opened())
    await opened().medium.write(held.key, b"an A1P")

    assert digest(b"an A1P") == await opened().read_back(held)
    with pytest.raises(StorageError, match="not what was stored"):
        await opened().fetch(held, tmp_path / "out")
    assert [] == list((tmp_path / "out").iterdir())

    await opened().mend(held, write(tmp_path, name="good"))

    assert held.digest == await opened().read_back(held)


async def test_what_is_gone_is_told_as_gone(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP")
    held = await found(opened())
    await opened().medium.delete(held.key)

    assert "gone" == await opened().read_back(held)


async def test_small_files_lie_beside_the_package(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP", pointer=b"<mets/>")

    assert b"<mets/>" == await opened().companion(await found(opened()), "pointer.xml")
    assert await opened().companion(await found(opened()), "other.xml") is None


async def test_what_is_deleted_is_gone_with_a_record_of_the_reason(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP", pointer=b"<mets/>")
    held = await found(opened())

    await opened().delete(held, reason="withdrawn by the donor", who="archivist")
    left = [entry.key async for entry in opened().medium.list()]
    kept = [key for key in left if "delete" in key]

    assert await opened().locate(PACKAGE) is None
    assert "gone" == await opened().read_back(held)
    assert [] == [key for key in left if key.endswith("pointer.xml")]
    assert b"withdrawn by the donor" in (await opened().medium.read(kept[0]) or b"")
    assert digest(b"anew") == (await store(opened(), write(tmp_path, b"anew"), b"anew")).digest


async def test_a_part_of_a_package_can_be_read(opened: Open, tmp_path: Path) -> None:
    await store(opened(), write(tmp_path), b"an AIP")
    key = (await found(opened())).key

    assert b"n A" == b"".join([chunk async for chunk in opened().medium.get(key, 1, 4)])
    assert b"AIP" == b"".join([chunk async for chunk in opened().medium.get(key, 3)])


async def test_what_another_attempt_left_unfinished_is_replaced(opened: Open, tmp_path: Path) -> None:
    """A machine was lost while it stored; another one made the AIP anew, with other bytes."""
    dead = dying(opened().medium, at=3)
    with pytest.raises(Killed):
        await store(type(opened())(dead), write(tmp_path, b"the first"), b"the first")

    await store(opened(), write(tmp_path), b"an AIP")

    assert b"an AIP" == await content(opened(), tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_store_without_conditions_keeps_packages_too(plain_s3: Server, tmp_path: Path, layout: str) -> None:
    archive = LAYOUTS[layout](BucketStore.open(plain_s3.url(layout), plain_s3.credentials))
    with pytest.raises(StorageError):
        await store(archive, write(tmp_path, b"damaged"), b"an AIP")
    tag_digest = make_bag(tmp_path / "bag", {"objects/a b": b"1"})

    for _ in range(2):
        await store_bag(archive, tmp_path / "bag", tag_digest)
    held = await found(archive)
    await archive.delete(held, reason="a test", who="a test")

    assert "gone" == await archive.read_back(held)


async def test_a_store_that_works_passes_its_check(opened: Open) -> None:
    await opened().check()


# --- crashes


class Killed(BaseException):
    """The process dies here."""


class Dying:
    """A store whose process dies before or after the change of this number."""

    def __init__(self, medium: Store, at: int, *, after: bool = False) -> None:
        self._medium, self._at, self._after = medium, at, after
        self.changes = 0

    def __getattr__(self, name: str) -> object:
        call = getattr(self._medium, name)
        if name not in {"put", "create", "write", "delete"}:
            return call

        async def dying(*arguments: object, **options: object) -> object:
            self.changes += 1
            if self.changes == self._at and not self._after:
                raise Killed
            result = await call(*arguments, **options)
            if self.changes == self._at:
                raise Killed
            return result

        return dying


def dying(medium: Store, at: int, *, after: bool = False) -> Store:
    return cast("Store", Dying(medium, at, after=after))


@pytest.mark.parametrize(
    ("place", "layout", "what"),
    [
        *itertools.product(["folder", "bucket"], LAYOUTS, ["file", "bag", "plain"]),
        ("server", "ocfl", "file"),
        ("server", "pairtree", "bag"),
    ],
)
async def test_a_crash_at_any_step_leaves_nothing_half_stored_and_it_goes_on(
    tmp_path: Path, openssh: SshServer, place: str, layout: str, what: str
) -> None:
    async with sftp_stores(openssh) as on_server:
        opened: dict[str, Callable[[Path], Store]] = {
            "folder": LocalStore,
            "bucket": lambda _: BucketStore(open_bucket("memory:///")),
            "server": on_server,
        }
        number, crashed = 0, True
        while crashed:
            number += 1
            for after in (False, True):
                here = tmp_path / f"{number}-{after}"
                (here / "work").mkdir(parents=True)
                medium = opened[place](here / "store")
                source, value = _make(here / "work", what)
                crashed = await _dies(LAYOUTS[layout](dying(medium, number, after=after)), source, value)
                archive = LAYOUTS[layout](medium)
                there = await archive.find(PACKAGE)
                assert there is None or value == await archive.read_back(there)

                await _store_as(archive, source, value)

                assert value == await archive.read_back(await found(archive))
                assert not [e.key async for e in medium.list() if e.key.endswith(".storing")]
        assert number > 3


def _make(work: Path, what: str) -> tuple[Path, str]:
    source = work / "a"
    if what == "bag":
        return source, make_bag(source, {"objects/a": b"1", "objects/b": b"2"})
    if what == "plain":
        (source / "in").mkdir(parents=True)
        for name in ("in/x", "y"):
            (source / name).write_bytes(name.encode())
        return source, folder_manifest(source, "a", SHA256, work.parent / "list")
    source.write_bytes(b"an AIP")
    return source, digest(b"an AIP")


async def _store_as(archive: Archive, source: Path, value: str) -> Stored:
    return await archive.store(source, Deposit(package=PACKAGE, name="a", size_bytes=1, algorithm=SHA256, digest=value))


async def _dies(archive: Archive, source: Path, value: str) -> bool:
    try:
        await _store_as(archive, source, value)
    except Killed:
        return True
    return False


class Deaf(BucketStore):
    """A bucket that does what it is told, and whose answers to writes are lost; then nothing is heard any more."""

    def __init__(self, bucket: Bucket, *, commit: str, silent: bool) -> None:
        super().__init__(bucket)
        self._commit, self._silent, self.lost = commit, silent, False

    async def write(self, key: str, content: bytes) -> None:
        await super().write(key, content)
        if key.endswith(self._commit):
            self.lost = True
            raise DependencyError("the connection was lost", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE)

    async def read(self, key: str) -> bytes | None:
        if self.lost and self._silent:
            raise DependencyError("nobody answers", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE)
        return await super().read(key)


@pytest.mark.parametrize(("layout", "commit"), [("pairtree", ".sha256"), ("ocfl", "/inventory.json")])
async def test_an_answer_that_is_lost_after_the_commit_is_resolved_by_looking(
    tmp_path: Path, layout: str, commit: str
) -> None:
    deaf = Deaf(open_bucket("memory:///"), commit=commit if layout == "pairtree" else "d/inventory.json", silent=False)
    if layout == "ocfl":
        deaf._commit = f"{(await _root())}/inventory.json"

    assert (await store(LAYOUTS[layout](deaf), write(tmp_path), b"an AIP")).digest == digest(b"an AIP")


async def test_what_looking_cannot_resolve_is_an_unknown_outcome_that_is_settled_later(tmp_path: Path) -> None:
    bucket = open_bucket("memory:///")
    source = write(tmp_path)

    with pytest.raises(StorageError) as caught:
        await store(PairtreeArchive(Deaf(bucket, commit=".sha256", silent=True)), source, b"an AIP")

    assert caught.value.code is Code.STORAGE_OUTCOME_UNKNOWN
    assert (await store(PairtreeArchive(BucketStore(bucket)), source, b"an AIP")).digest == digest(b"an AIP")


async def _root() -> str:
    from ingestd.storage.ocfl import object_root

    return object_root(f"urn:uuid:{PACKAGE}")


# --- OCFL


async def test_a_reingest_is_a_version_and_an_independent_validator_finds_the_root_valid(tmp_path: Path) -> None:
    from ocfl import StorageRoot

    archive = OcflArchive(LocalStore(tmp_path / "store", parts=f"{OUR_FOLDER}/parts"))
    await store(archive, write(tmp_path), b"an AIP")
    tag_digest = make_bag(tmp_path / "bag", {"objects/a b%.txt": b"1", "objects/b": b"1"})
    await archive.store(
        tmp_path / "bag", Deposit(package=uuid.uuid4(), name="b", size_bytes=1, algorithm=SHA256, digest=tag_digest)
    )
    with pytest.raises(StorageError, match="other content"):
        await store(archive, write(tmp_path, b"better"), b"better")

    second = await archive.store(
        write(tmp_path, b"better"),
        Deposit(
            package=PACKAGE,
            name="a.7z",
            size_bytes=6,
            algorithm=SHA256,
            digest=digest(b"better"),
            supersedes=digest(b"an AIP"),
            companions={"pointer.xml": b"<mets/>"},
        ),
    )
    valid = StorageRoot(root=str(tmp_path / "store")).validate()

    assert ("v2", b"better") == (second.version, await content(archive, tmp_path))
    assert valid


@pytest.mark.parametrize("algorithm", [DigestAlgorithm.MD5, DigestAlgorithm.SHA512])
async def test_with_any_algorithm_an_ocfl_root_is_valid(tmp_path: Path, algorithm: DigestAlgorithm) -> None:
    from ocfl import StorageRoot

    value = hashlib.new(algorithm.value, b"an AIP").hexdigest()
    archive = OcflArchive(LocalStore(tmp_path / "store", parts=f"{OUR_FOLDER}/parts"))

    await archive.store(
        write(tmp_path), Deposit(package=PACKAGE, name="a.7z", size_bytes=6, algorithm=algorithm, digest=value)
    )

    assert StorageRoot(root=str(tmp_path / "store")).validate()
    assert value == await archive.read_back(await found(archive))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
def test_any_name_is_encoded_so_that_it_comes_back(words: list[str]) -> None:
    key = "/".join(words).encode("utf-8", "replace").decode()

    assert key == decode(encode(key))
    assert not any(word.endswith(".") for word in encode(key).split("/"))


def test_names_that_are_bytes_and_names_that_look_encoded_come_back() -> None:
    for key in (os.fsdecode(b"a\xff\n"), "100%25", "%3a", "%41.", "..", "a\\b"):
        assert key == decode(encode(key))
    assert "urn%3auuid" == encode("urn%3auuid")


# --- the folder


def place_of(tmp_path: Path) -> Path:
    return tmp_path / "store" / pairtree(PACKAGE) / "a.7z"


def part_of(tmp_path: Path) -> Path:
    return LocalStore(tmp_path / "store")._part(f"{pairtree(PACKAGE)}/a.7z")


@pytest.mark.parametrize(
    "inventory",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"id": 5}',
        b'{"id": "urn:uuid:x", "head": "v1", "versions": {"v1": {"message": "{}", "created": "never"}}}',
        b'{"id": "urn:uuid:%s", "head": "v1", "versions": {"v1": {"message": "[]"}}}' % str(PACKAGE).encode(),
        b'{"id": "urn:uuid:%s", "head": ["v1"], "versions": 7}' % str(PACKAGE).encode(),
    ],
)
async def test_an_object_that_cannot_be_read_hides_no_other(tmp_path: Path, inventory: bytes) -> None:
    archive = OcflArchive(LocalStore(tmp_path / "store", parts=f"{OUR_FOLDER}/parts"))
    await store(archive, write(tmp_path), b"an AIP")
    for root in ("000/000/000/before", "fff/fff/fff/after"):
        (tmp_path / "store" / root).mkdir(parents=True)
        (tmp_path / "store" / root / "inventory.json").write_bytes(inventory)

    assert [PACKAGE] == [held.package async for held in archive.held()]


@pytest.mark.parametrize("inventory", [b"{damaged", b'{"id": "urn:uuid:other", "head": "v1", "versions": {}}'])
async def test_an_object_whose_inventory_is_none_of_ours_is_left_alone(tmp_path: Path, inventory: bytes) -> None:
    archive = OcflArchive(LocalStore(tmp_path / "store", parts=f"{OUR_FOLDER}/parts"))
    await store(archive, write(tmp_path), b"an AIP")
    (place,) = (tmp_path / "store").glob("???/???/???/*/inventory.json")
    place.write_bytes(inventory)

    with pytest.raises(StorageError) as caught:
        await store(archive, write(tmp_path, b"another"), b"another")

    assert caught.value.code is Code.STORAGE_CONFLICT
    assert inventory == place.read_bytes()


def local(tmp_path: Path) -> Archive:
    return PairtreeArchive(LocalStore(tmp_path / "store"))


def test_an_aip_lies_in_the_pairtree_of_its_uuid() -> None:
    assert "0123/4567/89ab/4def/8123/4567/89ab/cdef" == pairtree(PACKAGE)


async def test_beside_an_aip_lies_what_sha256sum_checks(tmp_path: Path) -> None:
    await store(local(tmp_path), write(tmp_path), b"an AIP")

    assert f"{digest(b'an AIP')}  a.7z\n" == place_of(tmp_path).with_name("a.7z.sha256").read_text()


async def test_files_of_an_aip_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "an AIP"
    folder.mkdir()
    for name in ("x", "x.part", "n" * 255, ".hidden"):
        (folder / name).write_text(name)

    store = LocalStore(tmp_path / "store")
    for name in ("x", "x.part", "n" * 255, ".hidden"):
        await store.put(f"deep/{name}", folder / name)
    await store.put("whole", folder, take=True)

    names = {entry.key async for entry in store.list()}
    assert {f"{place}/{path}" for place in ("deep", "whole") for path in ("x", "x.part", "n" * 255, ".hidden")} == names


async def test_what_was_moved_in_before_a_crash_is_named_after_it(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"an AIP")
    assert await local(tmp_path).locate(PACKAGE) is None

    await store(local(tmp_path), tmp_path / "gone", b"an AIP")

    assert b"an AIP" == await content(local(tmp_path), tmp_path)
    assert not part.exists()


async def test_a_crash_between_two_names_of_the_same_file_leaves_one(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"an AIP")
    place.with_name("a.7z.storing").write_text(digest(b"an AIP"))
    part_of(tmp_path).parent.mkdir(parents=True)
    os.link(place, part_of(tmp_path))

    await store(local(tmp_path), tmp_path / "gone", b"an AIP")

    assert ["a.7z", "a.7z.sha256"] == sorted(path.name for path in place.parent.iterdir())


async def test_what_somebody_else_put_there_is_a_conflict_and_stays(tmp_path: Path) -> None:
    place_of(tmp_path).parent.mkdir(parents=True)
    place_of(tmp_path).write_bytes(b"of another program")

    with pytest.raises(StorageError) as caught:
        await store(local(tmp_path), write(tmp_path), b"an AIP")

    assert caught.value.code is Code.STORAGE_CONFLICT
    assert b"of another program" == place_of(tmp_path).read_bytes()


async def test_a_place_where_no_folder_can_be_made_is_a_failure_of_storage_and_no_defect(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store(PairtreeArchive(LocalStore(Path("/proc/ingestd"))), write(tmp_path), b"an AIP")

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED


async def test_a_place_that_cannot_be_written_is_said_without_harm(tmp_path: Path) -> None:
    """A file stands where the store's folder should be: nobody, not even root, can write into it."""
    (tmp_path / "store").write_bytes(b"")
    source = write(tmp_path)

    with pytest.raises(StorageError) as caught:
        await store(local(tmp_path), source, b"an AIP")
    with pytest.raises(SystemFault) as checked:
        await local(tmp_path).check()

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED
    assert checked.value.code is Code.SYSTEM_CONFIGURATION
    assert source.read_bytes() == b"an AIP"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_without_the_right_to_write_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)

    with pytest.raises(StorageError):
        await store(local(tmp_path), write(tmp_path), b"an AIP")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, which is not the one of the test's folder: as small as one in memory gets here."""
    shm = Path("/dev/shm")
    folder = shm / f"ingestd-test-{uuid.uuid4()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"there is no second file system to write to: {error}")
    yield folder
    shutil.rmtree(folder)


async def test_from_another_file_system_it_is_copied_and_the_source_stays(small_disk: Path, tmp_path: Path) -> None:
    if small_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the test's folder is on the same file system as the one in memory")
    source = write(tmp_path)

    await store(local(small_disk), source, b"an AIP")

    assert b"an AIP" == await content(local(small_disk), tmp_path) == source.read_bytes()


async def test_a_full_disk_is_said_as_one_and_leaves_nothing_under_the_name(small_disk: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(small_disk).free
    if free > 256 * 2**20 or small_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no small file system is mounted at /dev/shm: a full disk cannot be had without root")
    block = os.urandom(2**20)
    source = tmp_path / "big"
    with source.open("wb") as out:
        for _ in range(free // 2**20 + 2):
            out.write(block)

    with pytest.raises(ResourceError) as caught:
        await store(local(small_disk), source, b"never read")

    assert caught.value.code is Code.RESOURCE_DISK
    assert await local(small_disk).locate(PACKAGE) is None
    assert source.exists()
