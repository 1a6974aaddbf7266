from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from ingestd.committing import found_stored
from ingestd.errors import StorageError
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
    data = {"aip": aip.model_dump(mode="json"), "warnings": [{"code": "c", "count": 2}], "workflow_digest": "w"}
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

    found = await found_stored(storing(package.id), package, "primary", locations)

    assert found is not None
    (copy,) = found["aip"].stored
    assert (copy.location, copy.checksum.value) == ("primary", DIGEST)
    assert copy.url.endswith("Papers.tar")
    assert found["warnings"][0].count == 2
    assert found["workflow_digest"] == "w"


async def test_an_aip_that_was_not_stored_yet_is_to_be_made_again(locations: Locations) -> None:
    package = a_package()

    assert await found_stored(storing(package.id), package, "primary", locations) is None


async def test_something_else_under_its_name_is_no_success(tmp_path: Path, locations: Locations) -> None:
    package = a_package()
    await stored(locations, package.id, tmp_path / "packed", b"something else")

    with pytest.raises(StorageError):
        await found_stored(storing(package.id), package, "primary", locations)
