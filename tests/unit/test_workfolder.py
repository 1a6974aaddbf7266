"""Folders that are read-only, forbidden, or none."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.errors import Code, ResourceError, SystemFault
from ingestd.messages import EventType
from ingestd.messages import Outcome as Result
from ingestd.storage.local import LocalStore
from ingestd.workfolder import UnusableError, fault, prove_folder
from tests.acceptance.program import Program, Run
from tests.small_service import House


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """ingestd as a user who may not do everything, whoever runs the tests."""
    made = Program(tmp_path)
    if os.geteuid() == 0:
        made.command = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *made.command)
    return made


def ingest(program: Program, *arguments: object) -> Run:
    source = program.folder / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")
    return program("ingest", source, *arguments)


def forbidden(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return folder


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_working_folder_that_is_forbidden_is_named_with_what_to_do(program: Program, below: str) -> None:
    program.data_dir = forbidden(program.folder / "forbidden") / below
    run = ingest(program)

    assert 2 == run.code
    assert "system.configuration" in run.err
    assert f"the folder {program.data_dir} cannot be used: Permission denied" in run.err
    assert f"Give the account that ingestd runs as (uid {os.geteuid()}) the right" in run.err
    assert "Traceback" not in run.err


def test_an_output_that_is_forbidden_is_told_before_any_work(program: Program) -> None:
    run = ingest(program, "--output", forbidden(program.folder / "forbidden") / "aips")

    assert 2 == run.code
    assert "system.configuration" in run.err
    assert "forbidden/aips cannot be used: Permission denied" in run.err
    assert [] == program.work_folders


def test_a_command_that_may_not_read_the_working_folder_says_so(program: Program) -> None:
    program.data_dir = program.folder / "forbidden"
    program.data_dir.mkdir(mode=0)
    run = program("packages")

    assert 2 == run.code
    assert "system.configuration" in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableError) as caught:
        prove_folder(tmp_path / "file" / below, "data_dir")

    assert Code.SYSTEM_CONFIGURATION is caught.value.code
    assert str(tmp_path / "file" / below) in caught.value.detail
    assert "Take the file away" in caught.value.remediation
    assert "data_dir" in caught.value.remediation


def test_a_folder_that_can_be_used_is_made_and_left_empty(tmp_path: Path) -> None:
    prove_folder(tmp_path / "a/b", "data_dir")

    assert [] == list((tmp_path / "a/b").iterdir())


async def test_a_store_in_what_is_no_folder_is_a_matter_of_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemFault) as caught:
        await LocalStore(tmp_path / "file").check()

    assert Code.SYSTEM_CONFIGURATION is caught.value.code


def test_what_went_wrong_in_a_working_folder_names_nothing_else_of_this_server(tmp_path: Path) -> None:
    folder = Settings(data_dir=tmp_path / "data").work_dir / str(uuid.uuid4())
    inside = fault(PermissionError(errno.EACCES, "Permission denied", str(folder / "transfer/a")), folder)
    outside = fault(PermissionError(errno.EACCES, "Permission denied", "/srv/secret"), folder)
    nameless = fault(OSError(errno.EROFS, "Read-only file system"), folder)

    assert Code.SYSTEM_CONFIGURATION is inside.code
    assert f"on the working disk, data/work/{folder.name}/transfer/a cannot be used: Permission denied" == inside.detail
    assert (Code.SYSTEM_BUG, False) == (outside.code, "secret" in outside.detail)
    assert Code.SYSTEM_CONFIGURATION is nameless.code
    assert isinstance(fault(OSError(errno.ENOSPC, "full"), folder), ResourceError)


async def test_a_disk_that_becomes_read_only_stops_a_package_which_goes_on_at_that_link(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.results["b"] = [OSError(errno.EROFS, "Read-only file system", str(tmp_path / "data/work/it/METS.xml"))]
    async with house.open() as ingest:
        failed = await ingest.preserve(house.source)
        assert failed.package_id is not None
        done = await (await ingest.resume(failed.package_id))

    assert failed.error is not None
    assert (Result.FAILED, Code.SYSTEM_CONFIGURATION) == (failed.outcome, failed.error.code)
    assert "data/work/it/METS.xml cannot be used: Read-only file system" in failed.error.detail
    assert Result.SUCCEEDED is done.outcome
    assert ["a", "b", "b"] == house.ran
    assert EventType.LINK_FAILED in house.kinds()
