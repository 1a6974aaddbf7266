"""What holds for every `ArchivalStorage`."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestd.errors import Code, DependencyError, IngestError, RequestError, ResourceError, StorageError, SystemFault
from ingestd.premis import DigestAlgorithm
from ingestd.storage import ArchivalStorage, Locations, Stored, open_storage
from ingestd.storage.local import LocalStorage, pairtree

PACKAGE = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
SHA256 = DigestAlgorithm.SHA256
Open = Callable[[], ArchivalStorage]


@pytest.fixture(params=["local"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the store that is tested; again, as after a crash, with every call."""
    return {"local": lambda: LocalStorage(tmp_path / "store")}[request.param]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(tmp_path: Path, content: bytes = b"an AIP", name: str = "a.7z") -> Path:
    path = tmp_path / "work" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


async def store(storage: ArchivalStorage, source: Path, content: bytes, package: uuid.UUID = PACKAGE) -> Stored:
    return await storage.store(
        source, package=package, name="a.7z", size_bytes=len(content), algorithm=SHA256, digest=digest(content)
    )


def read(url: str) -> bytes:
    return Path(url.removeprefix("file://")).read_bytes()


def make_bag(folder: Path, payload: dict[str, bytes]) -> str:
    """Write a bag by hand; gives its tag manifest's digest."""
    for name, content in payload.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    encoded = {name: name.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D") for name in payload}
    manifest = "".join(f"{digest(content)}  data/{encoded[name]}\n" for name, content in payload.items()).encode()
    (folder / "manifest-sha256.txt").write_bytes(manifest)
    (folder / "bagit.txt").write_bytes(b"BagIt-Version: 1.0\n")
    tags = (
        f"{digest(b'BagIt-Version: 1.0' + bytes([10]))}  bagit.txt\n{digest(manifest)}  manifest-sha256.txt\n".encode()
    )
    (folder / "tagmanifest-sha256.txt").write_bytes(tags)
    return digest(tags)


async def store_bag(storage: ArchivalStorage, folder: Path, tag_digest: str) -> Stored:
    return await storage.store(folder, package=PACKAGE, name="a", size_bytes=1, algorithm=SHA256, digest=tag_digest)


# --- every backend


async def test_what_was_stored_is_there_with_the_digest_it_was_read_back_with(opened: Open, tmp_path: Path) -> None:
    stored = await store(opened(), write(tmp_path), b"an AIP")

    assert b"an AIP" == read(stored.url)
    assert (SHA256, digest(b"an AIP"), 6) == (stored.algorithm, stored.digest, stored.size_bytes)
    assert stored.stored_at <= stored.verified_at
    assert stored.url == await opened().locate(PACKAGE)


async def test_what_is_not_there_is_nowhere(opened: Open) -> None:
    assert await opened().locate(PACKAGE) is None


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
    first = await store(opened(), write(tmp_path), b"an AIP")

    with pytest.raises(StorageError) as caught:
        await store(opened(), write(tmp_path, b"another"), b"another")

    assert caught.value.code is Code.STORAGE_CONFLICT
    assert b"an AIP" == read(first.url)
    assert (tmp_path / "work" / "a.7z").read_bytes() == b"another"


async def test_a_source_that_is_not_what_was_promised_is_not_stored(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store(opened(), write(tmp_path, b"damaged"), b"an AIP")

    assert caught.value.code is Code.STORAGE_VERIFY_MISMATCH
    assert await opened().locate(PACKAGE) is None


async def test_a_source_that_never_was_is_a_failure(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store(opened(), tmp_path / "nothing", b"an AIP")

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED
    assert await opened().locate(PACKAGE) is None


async def test_two_packages_do_not_meet(opened: Open, tmp_path: Path) -> None:
    other = uuid.UUID("01234567-89ab-4def-8123-456789abcdee")
    one = await store(opened(), write(tmp_path), b"an AIP")
    two = await store(opened(), write(tmp_path, b"another"), b"another", other)

    assert (b"an AIP", b"another") == (read(one.url), read(two.url))


async def test_a_folder_is_stored_whole(opened: Open, tmp_path: Path) -> None:
    payload = {"objects/a b.txt": b"1", "objects/100%25\n.txt": b"2", "METS.xml": b"3"}
    tag_digest = make_bag(tmp_path / "bag", payload)

    stored = await store_bag(opened(), tmp_path / "bag", tag_digest)

    place = Path(await opened().locate(PACKAGE) or "").name
    assert place == "a"
    for name, content in payload.items():
        folder = stored.url.removeprefix("file://")
        assert content == (Path(folder) / "data" / name).read_bytes()
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


async def test_a_store_that_works_passes_its_check(opened: Open) -> None:
    await opened().check()


# --- the folder


def place_of(tmp_path: Path) -> Path:
    return tmp_path / "store" / pairtree(PACKAGE) / "a.7z"


def test_an_aip_lies_in_the_pairtree_of_its_uuid() -> None:
    assert "0123/4567/89ab/4def/8123/4567/89ab/cdef" == str(pairtree(PACKAGE))


async def test_a_copy_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    part = place_of(tmp_path).with_name("a.7z.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"an A")

    stored = await store(LocalStorage(tmp_path / "store"), write(tmp_path), b"an AIP")

    assert b"an AIP" == read(stored.url)
    assert ["a.7z"] == [path.name for path in part.parent.iterdir()]


async def test_what_was_moved_in_before_a_crash_is_named_after_it(tmp_path: Path) -> None:
    part = place_of(tmp_path).with_name("a.7z.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"an AIP")
    storage = LocalStorage(tmp_path / "store")
    assert await storage.locate(PACKAGE) is None

    stored = await store(storage, tmp_path / "gone", b"an AIP")

    assert b"an AIP" == read(stored.url)
    assert not part.exists()


async def test_a_crash_between_two_names_of_the_same_file_leaves_one(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    await store(storage, write(tmp_path), b"an AIP")
    part = place_of(tmp_path).with_name("a.7z.part")
    os.link(place_of(tmp_path), part)

    await store(storage, tmp_path / "gone", b"an AIP")

    assert ["a.7z"] == [path.name for path in part.parent.iterdir()]


async def test_a_place_that_cannot_be_written_is_said_without_harm(tmp_path: Path) -> None:
    """A file stands where the store's folder should be: nobody, not even root, can write into it."""
    (tmp_path / "store").write_bytes(b"")
    storage = LocalStorage(tmp_path / "store")
    source = write(tmp_path)

    with pytest.raises(StorageError) as caught:
        await store(storage, source, b"an AIP")
    with pytest.raises(DependencyError) as checked:
        await storage.check()

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED
    assert checked.value.code is Code.DEPENDENCY_STORAGE_UNAVAILABLE
    assert source.read_bytes() == b"an AIP"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_without_the_right_to_write_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)

    with pytest.raises(StorageError):
        await store(LocalStorage(tmp_path / "store"), write(tmp_path), b"an AIP")


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
    storage, source = LocalStorage(small_disk / "store"), write(tmp_path)

    stored = await store(storage, source, b"an AIP")

    assert b"an AIP" == read(stored.url) == source.read_bytes()


async def test_a_full_disk_is_said_as_one_and_leaves_nothing_under_the_name(small_disk: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(small_disk).free
    if free > 256 * 2**20 or small_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no small file system is mounted at /dev/shm: a full disk cannot be had without root")
    content = os.urandom(2**20)
    source = tmp_path / "big"
    with source.open("wb") as out:
        for _ in range(free // 2**20 + 2):
            out.write(content)
    storage = LocalStorage(small_disk / "store")

    with pytest.raises(ResourceError) as caught:
        await storage.store(
            source, package=PACKAGE, name="a.7z", size_bytes=1, algorithm=SHA256, digest=digest(b"never read")
        )

    assert caught.value.code is Code.RESOURCE_DISK
    assert await storage.locate(PACKAGE) is None
    assert source.exists()


# --- locations


def test_locations_are_named_and_one_is_the_default(tmp_path: Path) -> None:
    locations = Locations.open({"a": tmp_path.as_uri(), "b": str(tmp_path)}, "b")

    assert (["a", "b"], "b") == (locations.names, locations.default)
    with pytest.raises(RequestError, match="a, b") as caught:
        locations.get("c")
    assert caught.value.code is Code.REQUEST_UNKNOWN_LOCATION


@pytest.mark.parametrize("url", ["s3://key:s3cret@host/bucket", "relative/folder", "file://host/folder", ""])
def test_a_url_that_no_backend_knows_is_a_fault_that_tells_no_secret(url: str) -> None:
    with pytest.raises(SystemFault) as caught:
        open_storage(url)

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert "s3cret" not in caught.value.detail


def test_a_default_that_is_not_among_the_locations_is_a_fault() -> None:
    with pytest.raises(IngestError, match="nowhere"):
        Locations.open({"a": "/a"}, "nowhere")


def test_a_url_is_for_the_trusted_alone(tmp_path: Path) -> None:
    locations = Locations.open({"a": "/a"}, "a")

    assert isinstance(locations.get(tmp_path.as_uri(), trusted=True), LocalStorage)
    with pytest.raises(RequestError):
        locations.get(tmp_path.as_uri())
