"""An ingest that dies, or fails, is gone on with: what is done is not done again, and there is one AIP in the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import SMALL_FILES, many_files, small_transfer
from tests.acceptance.program import Program, Run, kill_in, running, wait_until
from tests.acceptance.tracing import killed_at
from tests.bench import need
from tests.objectstores import KEY, SECRET, parts_there, watched_moto

FILES = 120


@pytest.fixture
def ingestd(tmp_path: Path) -> Program:
    return Program(tmp_path, KEEP_WORK="true", LOG_LEVEL="error")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough files and bytes for every stage to take a while."""
    return many_files(tmp_path_factory.mktemp("corpus") / "Archive", FILES - 1, heavy_bytes=5 * 2**20)


def ingest_command(corpus: Path, output: Path) -> list[object]:
    packing = ("--set", "aip_compression_algorithm=s7_lzma", "--set", "aip_compression_level=9")
    return ["ingest", corpus, "--output", output, "--json", *packing]


def ended(jobs: list[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {job["row"]: job for job in jobs if job["ended_at"] is not None}


def programs_on(folder: Path) -> list[str]:
    """Command lines, of any program, that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in line:
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.slow
@pytest.mark.tool
@pytest.mark.parametrize(
    "link",
    [
        "Receive the transfer",
        "Record sizes and checksums",
        "Identify formats",
        "Write the METS, with empty folders",
        "Make the bag",
        "Verify the AIP",
    ],
)
def test_a_killed_ingest_is_finished_by_the_same_command(
    link: str, ingestd: Program, corpus: Path, output: Path
) -> None:
    command = ingest_command(corpus, output)
    code = kill_in(ingestd, command, link)

    assert code == -signal.SIGKILL
    before = ingestd.jobs()
    (folder,) = ingestd.work_folders
    assert stored_below(output) == []
    wait_until(lambda: not programs_on(folder), "the end of the programs that were started", seconds=10)

    run = ingestd(*command)

    assert run.code == 0, run.err
    after = {job["row"]: job for job in ingestd.jobs()}
    assert ingestd.work_folders == [folder]
    assert run.result["package_id"] == folder.name
    assert run.result["attempt"] == 2
    done = ended(before)
    assert {row: after[row] for row in done} == done
    assert [name for name, count in Counter(job["link"] for job in after.values()).items() if count > 1] == []
    assert all(job["exit_code"] == 0 for job in after.values())
    assert run.result["counts"]["originals"] == FILES
    assert stored_below(output) == [stored_path(run.result)]
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    assert len(aip.of("original")) == FILES


@pytest.mark.slow
@pytest.mark.tool
def test_an_ingest_that_is_killed_again_and_again_is_finished(ingestd: Program, corpus: Path, output: Path) -> None:
    command = ingest_command(corpus, output)
    for link in ("Register the files", "Make names of objects safe", "Write the METS, with empty folders"):
        kill_in(ingestd, command, link)

    run = ingestd(*command)

    assert run.code == 0, run.err
    assert run.result["attempt"] == 4
    assert stored_below(output) == [stored_path(run.result)]
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    assert len(aip.of("original")) == FILES


@pytest.mark.tool
def test_the_mets_of_a_resumed_ingest_tells_every_event_once(ingestd: Program, tmp_path: Path, output: Path) -> None:
    source = many_files(tmp_path / "Archive", 80, heavy_bytes=2**20)
    kill_in(ingestd, ingest_command(source, output), "Characterize files")

    run = ingestd(*ingest_command(source, output))

    assert run.code == 0, run.err
    aip = open_aip(stored_path(run.result), tmp_path / "opened")
    doubled = {
        entry.path: kinds
        for entry in aip.mets.all_files()
        if (kinds := [k for k, n in Counter(event.type for event in entry.get_premis_events()).items() if n > 1])
    }
    assert doubled == {}


@pytest.mark.tool
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_ingest_says_how_to_go_on_and_does(
    how: signal.Signals, ingestd: Program, corpus: Path, output: Path
) -> None:
    command = ingest_command(corpus, output)
    with running(ingestd, *command) as process:
        wait_until(lambda: any(job["name"] == "Pack the AIP" for job in ingestd.jobs()), "packing", every=0.005)
        process.send_signal(how)
        _, err = process.communicate(timeout=20)

    (folder,) = ingestd.work_folders
    assert process.returncode == 130
    assert f"ingestd resume {folder.name}" in err.decode()
    assert "Traceback" not in err.decode()
    assert stored_below(output) == []
    assert programs_on(folder) == []

    run = ingestd("resume", folder, "--json")

    assert run.code == 0, run.err
    assert stored_below(output) == [stored_path(run.result)]


@pytest.mark.tool
def test_other_options_or_another_source_do_not_take_up_an_interrupted_ingest(
    ingestd: Program, corpus: Path, tmp_path: Path, output: Path
) -> None:
    kill_in(ingestd, ingest_command(corpus, output), "Identify formats")
    (interrupted,) = ingestd.work_folders
    other = small_transfer(tmp_path / "other")

    run = ingestd("ingest", other, "--output", output, "--json")

    assert run.code == 0, run.err
    assert run.result["package_id"] != interrupted.name
    assert run.result["counts"]["originals"] == SMALL_FILES
    assert interrupted in ingestd.work_folders


@pytest.mark.tool
def test_two_ingests_of_one_source_at_once_make_two_aips(ingestd: Program, corpus: Path, output: Path) -> None:
    command = ingest_command(corpus, output)
    with running(ingestd, *command) as first:
        wait_until(lambda: any(job["name"] == "Identify formats" for job in ingestd.jobs()), "identification")
        second = ingestd(*command)
        first_code = first.wait(40)

    assert (first_code, second.code) == (0, 0), second.err
    assert len(stored_below(output)) == 2
    assert len(ingestd.work_folders) == 2


@pytest.mark.tool
def test_an_ingest_that_is_killed_before_it_prints_its_result_prints_it_when_it_is_run_again(
    ingestd: Program, tmp_path: Path, output: Path
) -> None:
    need("strace")
    command = ["ingest", small_transfer(tmp_path / "Letters"), "--output", output, "--json"]
    printed = tmp_path / "printed"
    with killed_at(ingestd, 1, "write", on=printed):
        killed = ingestd(*command, out=printed)
    assert killed.code == -signal.SIGKILL, killed.err
    assert printed.read_bytes() == b""
    assert [(1, 1)] == [(request["untold"], request["attempt"]) for request in ingestd.requests()]

    unprinted = ingestd(*command, out=Path("/dev/full"))

    assert unprinted.code == 1, unprinted.err
    assert "could not be written to standard output" in unprinted.err
    assert "Traceback" not in unprinted.err

    run = ingestd(*command)

    assert run.code == 0, run.err
    assert "could not say so" in run.err
    assert run.result["attempt"] == 1
    assert [request["package"] for request in ingestd.requests()] == [run.result["package_id"]]
    assert stored_below(output) == [stored_path(run.result)]

    anew = ingestd(*command)

    assert anew.code == 0, anew.err
    assert "could not say so" not in anew.err
    assert len(stored_below(output)) == 2


@pytest.mark.slow
@pytest.mark.tool
def test_an_upload_that_a_kill_cut_short_is_gone_on_with_at_the_parts_that_are_missing(tmp_path: Path) -> None:
    """The AIP is found in the journal, and its upload in the store."""
    source = tmp_path / "Film"
    source.mkdir()
    (source / "film.bin").write_bytes(os.urandom(2**20) * 44)
    came: list[int] = []
    victim: list[subprocess.Popen[bytes]] = []

    def watch(method: str, path: str, answering: bool) -> None:
        number = re.search(r"[?&]partNumber=(\d+)", path)
        if method == "PUT" and number:
            if answering:
                came.append(int(number[1]))
            elif victim and int(number[1]) > 4:
                time.sleep(1)  # the four that go up at once come first
            if victim and len(came) >= 2:
                victim.pop().kill()

    with watched_moto(watch) as server:
        place = {"url": server.url("cut-short"), "credentials": "store", "endpoint": server.endpoint}
        account = {"region": "us-east-1", "access_key_id": KEY, "secret_access_key": SECRET}
        ingestd = Program(
            tmp_path,
            LOG_LEVEL="error",
            LOCATIONS=json.dumps({"primary": place}),
            DEFAULT_LOCATION="primary",
            CREDENTIALS=json.dumps({"store": account}),
        )
        command = ("ingest", source, "--json", "--set", "aip_compression_algorithm=s7_copy")
        victim.append(ingestd.start(*command))
        process = victim[0]
        process.communicate(timeout=60)
        there = parts_there(server, "cut-short")
        came.clear()
        run = ingestd(*command)

    assert process.returncode == -signal.SIGKILL
    assert run.code == 0, run.err
    assert run.result["attempt"] == 2
    assert len(there) >= 2
    assert sorted(came) == sorted(set(range(1, 7)) - there)


# --- failed, mended, gone on with


def failed_to_store(ingestd: Program, source: Path, output: Path) -> Run:
    """An ingest whose archival storage became unusable once it had begun: before that, it would be rejected."""
    kill_in(ingestd, ["ingest", source, "--output", output], "Identify formats")
    shutil.rmtree(output, ignore_errors=True)
    output.write_text("a file is in the way", encoding="utf-8")
    (folder,) = ingestd.work_folders
    return ingestd("resume", folder.name, "--json")


@pytest.mark.tool
def test_a_store_that_could_not_be_written_is_mended_and_only_storing_is_done_again(
    ingestd: Program, tmp_path: Path, output: Path
) -> None:
    failed = failed_to_store(ingestd, small_transfer(tmp_path / "Letters"), output)

    assert failed.code == 1, failed.err
    assert failed.result["outcome"] == "failed"
    assert failed.result["aip"]["stored"] == []
    (folder,) = ingestd.work_folders
    assert failed.result["work_folder"] == str(folder)
    before = {row: job for row, job in ended(ingestd.jobs()).items() if job["exit_code"] == 0}
    output.unlink()

    run = ingestd("resume", folder.name, "--json")

    assert run.code == 0, run.err
    assert run.result["attempt"] == failed.result["attempt"] + 1
    assert stored_below(output) == [stored_path(run.result)]
    after = {job["row"]: job for job in ingestd.jobs()}
    assert {row: after[row] for row in before} == before
    open_aip(stored_path(run.result), tmp_path / "opened")


@pytest.mark.tool
def test_a_broken_metadata_csv_is_mended_in_the_working_folder(ingestd: Program, tmp_path: Path, output: Path) -> None:
    source = small_transfer(tmp_path / "Letters")
    (source / "metadata").mkdir()
    broken = b'filename,dc.title\nobjects/letters/one.txt,"A letter\xff\xfe\n'
    (source / "metadata" / "metadata.csv").write_bytes(broken)
    ingestd.settings["PREFLIGHT__MAX_METADATA_BYTES"] = 1  # it would be rejected before anything is done

    failed = ingestd("ingest", source, "--output", output, "--json")

    assert failed.code == 1, failed.err
    assert failed.result["error"]["code"] == "content.metadata_invalid"
    (folder,) = ingestd.work_folders
    (table,) = folder.rglob("metadata.csv")
    table.write_text("filename,dc.title\nobjects/letters/one.txt,A letter\n", encoding="utf-8")

    run = ingestd("resume", folder, "--json")

    assert run.code == 0, run.err
    assert "content.metadata_changed" in {warning["code"] for warning in run.result["warnings"]}
    aip = open_aip(stored_path(run.result), tmp_path / "opened")
    (mets,) = (aip.folder / "data").glob("METS.*.xml")
    assert "<dc:title>A letter</dc:title>" in mets.read_text(encoding="utf-8")


@pytest.mark.tool
def test_a_package_that_is_still_broken_fails_again_and_can_be_resumed_again(
    ingestd: Program, tmp_path: Path, output: Path
) -> None:
    failed = failed_to_store(ingestd, small_transfer(tmp_path / "Letters"), output)
    (folder,) = ingestd.work_folders

    again = ingestd("resume", folder, "--json")

    assert again.code == 1, again.err
    assert again.result["attempt"] == failed.result["attempt"] + 1
    output.unlink()
    run = ingestd("resume", folder, "--json")
    assert run.code == 0, run.err
    assert run.result["attempt"] == failed.result["attempt"] + 2
    assert stored_below(output) == [stored_path(run.result)]


@pytest.mark.parametrize("package", ["not-a-package", "5b6e3b35-0f2c-4d71-a9f2-6f8c5a0b9a51"])
def test_what_is_no_package_cannot_be_resumed(package: str, ingestd: Program) -> None:
    run = ingestd("resume", package)

    assert run.code == 2, run.err
    assert package in run.err
    assert "What to do" in run.err


@pytest.mark.tool
def test_a_package_that_is_stored_cannot_be_resumed(ingestd: Program, tmp_path: Path, output: Path) -> None:
    done = ingestd("ingest", small_transfer(tmp_path / "Letters"), "--output", output, "--json")

    run = ingestd("resume", done.result["package_id"])

    assert run.code == 2, run.err
    assert "nothing to attempt again" in run.err
    assert len(stored_below(output)) == 1
