from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from ingestd.committing import found_stored
from ingestd.errors import StorageError
from ingestd.keeping import LocationSettings
from ingestd.leases import Storing
from ingestd.messages import AipData, Checksum, CompressionAlgorithm
from ingestd.premis import DigestAlgorithm
from ingestd.storage import Deposit, Locations
from tests.steps import a_package

CONTENT = b"an AIP"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def storing(package: uuid.UUID) -> Storing:
    checksum = Checksum(algorithm=DigestAlgorithm.SHA256, value=DIGEST)
    aip = AipData(
        id=package,
        name="Papers",
        size_bytes=len(CONTENT),
        checksum=checksum,
        format=CompressionAlgorithm.TAR,
        mets_path="m",
        mets_checksum=checksum,
    )
    data: dict[str, Any] = {
        "aip": aip.model_dump(mode="json"),
        "warnings": [{"code": "c", "count": 2}],
        "workflow_digest": "w",
    }
    return Storing(name="Papers.tar", size_bytes=len(CONTENT), algorithm="sha256", digest=DIGEST, data=data)


async def stored(locations: Locations, package: uuid.UUID, source: Path, content: bytes) -> None:
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    await locations.get("primary").store(
        source,
        Deposit(
            package=package, name="Papers.tar", size_bytes=len(content), algorithm=DigestAlgorithm.SHA256, digest=digest
        ),
    )


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations.open({"primary": (tmp_path / "aips").as_uri()}, "primary")


async def test_an_aip_whose_worker_died_after_storing_it_is_found_proved_and_told_of(
    tmp_path: Path, locations: Locations
) -> None:
    package = a_package()
    await stored(locations, package.id, tmp_path / "packed", CONTENT)

    found = await found_stored(storing(package.id), package, "primary", locations, tmp_path / "scratch")

    assert found is not None
    (copy,) = found["aip"].stored
    assert (copy.location, copy.checksum.value) == ("primary", DIGEST)
    assert copy.url.endswith("Papers.tar")
    assert found["warnings"][0].count == 2
    assert found["workflow_digest"] == "w"


async def test_an_aip_that_was_not_stored_yet_is_to_be_made_again(tmp_path: Path, locations: Locations) -> None:
    package = a_package()

    assert await found_stored(storing(package.id), package, "primary", locations, tmp_path / "scratch") is None


async def test_something_else_under_its_name_is_no_success(tmp_path: Path, locations: Locations) -> None:
    package = a_package()
    await stored(locations, package.id, tmp_path / "packed", b"something else")

    with pytest.raises(StorageError):
        await found_stored(storing(package.id), package, "primary", locations, tmp_path / "scratch")


@pytest.mark.parametrize("stale", [False, True])
async def test_the_copies_that_are_missing_are_made_from_the_one_there_is(tmp_path: Path, stale: bool) -> None:
    package = a_package()
    folders = {name: (tmp_path / name).as_uri() for name in ("near", "far")}
    both = {"primary": {"locations": ["near", "far"]}} | {name: {"url": url} for name, url in folders.items()}
    locations = Locations.open({name: LocationSettings.model_validate(it) for name, it in both.items()}, "primary")
    await stored(Locations.open({"primary": folders["near"]}, "primary"), package.id, tmp_path / "packed", CONTENT)
    if stale:  # an earlier worker fetched it, and died as well
        (tmp_path / "scratch").mkdir()
        (tmp_path / "scratch/Papers.tar").write_bytes(b"half")

    found = await found_stored(storing(package.id), package, "primary", locations, tmp_path / "scratch")

    assert found is not None
    assert [("near", DIGEST), ("far", DIGEST)] == [(copy.location, copy.checksum.value) for copy in found["aip"].stored]
    assert [CONTENT, CONTENT] == [path.read_bytes() for path in sorted(tmp_path.glob("*/**/Papers.tar"))]
    assert ["c"] == [warning.code for warning in found["warnings"]]


async def test_a_dip_that_was_lost_with_its_machine_is_a_warning(tmp_path: Path, locations: Locations) -> None:
    package = a_package()
    await stored(locations, package.id, tmp_path / "packed", CONTENT)
    said = storing(package.id).model_copy(update={"has_dip": True})

    found = await found_stored(said, package, "primary", locations, tmp_path / "scratch")

    assert found is not None
    assert ["c", "storage.dip_failed"] == [warning.code for warning in found["warnings"]]
