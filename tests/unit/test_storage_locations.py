from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from ingestd.config import Settings
from ingestd.errors import Code, RequestError, StorageError, SystemFault
from ingestd.keeping import CredentialSettings, Layout, LocationSettings
from ingestd.storage import Copies, Deposit, Locations, Target, open_archive
from ingestd.storage.conditional import BucketConditional, LocalConditional
from ingestd.storage.ocfl import OcflArchive
from ingestd.storage.pairtree import PairtreeArchive
from tests.storing import PACKAGE, SHA256, digest, write


def locations(tmp_path: Path, *, broken: bool = False, min_copies: int = 0) -> Locations:
    if broken:
        (tmp_path / "two").write_bytes(b"")  # a file: nothing can be stored below it
    return Locations.open(
        {
            "one": (tmp_path / "one").as_uri(),
            "two": LocationSettings(url=str(tmp_path / "two"), layout=Layout.OCFL),
            "both": LocationSettings(locations=("one", "two"), min_copies=min_copies),
        },
        "both",
    )


async def test_a_target_of_several_places_gets_a_copy_on_each(tmp_path: Path) -> None:
    opened = locations(tmp_path)
    source = write(tmp_path)

    await keep(opened.get("both"), source)
    copies = await keep(opened.get("both"), source)

    assert ["one", "two"] == [one.location for one in copies.stored]
    assert not source.exists()  # the last place took it
    assert ["one", "two"] == [name async for name, _, _ in opened.find(PACKAGE)]


async def test_too_few_copies_are_a_failure_that_names_the_place_and_can_be_tried_again(tmp_path: Path) -> None:
    opened = locations(tmp_path, broken=True)
    source = write(tmp_path)

    with pytest.raises(StorageError) as caught:
        await keep(opened.get("both"), source)
    assert Code.STORAGE_INSUFFICIENT_COPIES is caught.value.code
    assert ["two"] == [violation.path for violation in caught.value.violations]

    (tmp_path / "two").unlink()

    assert 2 == len((await keep(opened.get("both"), source)).stored)


async def test_as_many_copies_as_are_asked_for_are_enough(tmp_path: Path) -> None:
    copies = await keep(locations(tmp_path, broken=True, min_copies=1).get("both"), write(tmp_path))

    assert (["one"], ["two"]) == ([one.location for one in copies.stored], [name for name, _ in copies.failed])


async def test_a_place_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match="'two'"):
        await locations(tmp_path, broken=True).check()


def test_unknown_names_are_refused_with_those_there_are(tmp_path: Path) -> None:
    opened = locations(tmp_path)

    assert (["both", "one", "two"], "both") == (opened.names, opened.default)
    with pytest.raises(RequestError, match="both, one, two") as caught:
        opened.get("c")
    assert caught.value.code is Code.REQUEST_UNKNOWN_LOCATION
    for tables, default in (
        ({"a": "/a"}, "nowhere"),
        ({"a": LocationSettings(locations=("nowhere",))}, "a"),
        ({"a": LocationSettings(url="s3://b", credentials="nowhere")}, "a"),
    ):
        with pytest.raises(SystemFault, match="nowhere"):
            Locations.open(tables, default)


def test_a_url_is_for_the_trusted_alone(tmp_path: Path) -> None:
    opened = locations(tmp_path)

    assert [tmp_path.as_uri()] == list(opened.get(tmp_path.as_uri(), trusted=True).places)
    with pytest.raises(RequestError):
        opened.get(tmp_path.as_uri())


@pytest.mark.parametrize("url", ["s3://key:s3cret@host/bucket", "relative/folder", "file://host/folder", "ftp://a"])
def test_a_url_that_no_backend_knows_is_a_fault_that_tells_no_secret(url: str) -> None:
    with pytest.raises(SystemFault) as caught:
        open_archive(url)

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert "s3cret" not in caught.value.detail


def test_a_location_is_a_url_or_a_table_in_the_settings() -> None:
    settings = Settings.load(
        environ={
            "INGESTD_LOCATIONS": '{"a": "file:///a", "b": {"url": "s3://b/p", "credentials": "acme", "layout": "ocfl"}}',
            "INGESTD_CREDENTIALS__ACME__SECRET_ACCESS_KEY": "s3cret",
            "INGESTD_CREDENTIALS__ACME__ACCESS_KEY_ID": "me",
            "INGESTD_CREDENTIALS__ACME__REGION": "eu-west-1",
            "INGESTD_DEFAULT_LOCATION": "a",
        }
    )
    opened = Locations.open(settings.all_locations, settings.default_location, settings.credentials)

    assert isinstance(opened.places["a"], PairtreeArchive)
    assert isinstance(opened.places["b"], OcflArchive)
    assert "s3cret" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("table", [{}, {"url": "/a", "locations": ("b",)}, {"locations": ("b",), "min_copies": 2}])
def test_a_table_that_says_nothing_or_two_things_is_not_valid(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LocationSettings.model_validate(table)


def test_documents_for_workers_lie_where_the_layout_allows_them(tmp_path: Path) -> None:
    credentials = {"acme": CredentialSettings(secret_access_key=SecretStr("x"), access_key_id=SecretStr("y"))}
    bucket = LocationSettings(url="s3://b/p", credentials="acme")
    opened = Locations.open({"a": str(tmp_path), "b": bucket}, "a", credentials)

    assert isinstance(opened.conditional("a"), LocalConditional)
    assert isinstance(opened.conditional("b"), BucketConditional)


async def keep(target: Target, source: Path) -> Copies:
    return await target.store(
        source, Deposit(package=PACKAGE, name="a.7z", size_bytes=6, algorithm=SHA256, digest=digest(b"an AIP"))
    )
