"""The command line as a user meets it: commands, their words and their exit codes."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import SMALL_FILES, damaged_since, small_transfer
from tests.acceptance.program import Program, event_schema
from tests.conftest import REPOSITORY

COMMANDS = ("ingest", "resume", "serve", "submit", "watch", "topology", "doctor", "workflow", "config", "schemas")


@pytest.fixture
def ingestd(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def transfer(tmp_path: Path) -> Path:
    return small_transfer(tmp_path / "transfer")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def tar_of(folder: Path, path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # modes are named by the tests below
        archive.add(folder, arcname=folder.name)
    return path


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in sorted(folder.rglob("*")):
            archive.write(item, item.relative_to(folder.parent))
    return path


def tar_zst_of(folder: Path, path: Path) -> Path:
    subprocess.run(["tar", "--zstd", "-cf", path, "-C", folder.parent, folder.name], check=True)
    return path


def seven_zip_of(folder: Path, path: Path) -> Path:
    subprocess.run(["7z", "a", "-bd", path, folder.name], cwd=folder.parent, check=True, stdout=subprocess.DEVNULL)
    return path


ARCHIVES: dict[str, Callable[[Path, Path], Path]] = {
    "zip": zip_of,
    "tar": functools.partial(tar_of, mode="w:"),
    "tar.gz": functools.partial(tar_of, mode="w:gz"),
    "tar.bz2": functools.partial(tar_of, mode="w:bz2"),
    "tar.xz": functools.partial(tar_of, mode="w:xz"),
    "tar.zst": tar_zst_of,
    "7z": seven_zip_of,
}

# --- what is ingested


@pytest.mark.tool
def test_a_folder_becomes_an_aip_that_bagit_and_metsrw_read(transfer: Path, output: Path) -> None:
    ingestd = Program(output.parent, PROCESSING="{}")

    run = ingestd("ingest", transfer, "--output", output, "--json")

    assert run.code == 0, run.err
    result = run.result
    (path,) = stored_below(output)
    assert path == stored_path(result)
    aip = open_aip(path, output.parent / "opened")
    assert aip.of("original") == [
        "objects/empty.bin",
        "objects/letters/1931/Reponse_a_Ada.txt",
        "objects/letters/1931/catalogue.xml",
        "objects/letters/one.txt",
        "objects/portrait.png",
    ]
    assert any(name.endswith("letters/1931/Réponse à Ada.txt") for name in aip.original_names)
    assert result["counts"]["originals"] == SMALL_FILES
    assert result["counts"]["files"] == len(aip.use)
    assert aip.folder.name == result["aip"]["name"] == f"transfer-{result['aip']['id']}"
    assert (aip.folder / "data" / "README.html").is_file()
    assert (aip.folder / "data" / "logs").is_dir()
    assert ingestd.work_folders == []
    assert [] == [
        path for path in aip.folder.rglob("*") if path.is_file() and os.fsencode(output.parent) in path.read_bytes()
    ]


@pytest.mark.tool
def test_the_json_of_a_result_is_what_the_published_schema_says(ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--json", "--accession", "2026-17", "--identifier", "X 1")

    assert run.code == 0, run.err
    assert [error.message for error in event_schema("EventData").iter_errors(run.result)] == []
    assert run.result["accession"] == "2026-17"
    assert run.result["external_identifier"] == "X 1"
    assert run.result["workflow_digest"]
    assert {tool["name"] for tool in run.result["tools"]} >= {"Siegfried", "ExifTool"}


@pytest.mark.tool
def test_the_words_for_people_name_the_aip_and_what_is_in_it(ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--name", "Letters of 1931")

    assert run.code == 0, run.err
    (path,) = stored_below(output)
    assert path.name.startswith("Letters")
    assert str(path) in run.out
    assert f"{SMALL_FILES} originals" in run.out
    assert "Verified" in run.out
    assert "Identify formats" in run.err
    assert "\x1b" not in run.err, "plain lines where there is no terminal"


@pytest.mark.tool
def test_a_single_file_is_a_transfer_of_one(ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer / "portrait.png", "--output", output, "--json")

    assert run.code == 0, run.err
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    assert aip.of("original") == ["objects/portrait.png"]


@pytest.mark.tool
@pytest.mark.parametrize("suffix", ARCHIVES)
def test_an_archive_is_unpacked(suffix: str, ingestd: Program, transfer: Path, output: Path) -> None:
    archive = ARCHIVES[suffix](transfer, output.parent / f"Papers.{suffix}")

    run = ingestd("ingest", archive, "--output", output, "--json")

    assert run.code == 0, run.err
    assert run.result["package_name"] == "Papers"
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    assert len(aip.of("original")) == SMALL_FILES
    by = [
        [link.linking_agent_identifier_value for link in event.findall("linking_agent_identifier")][3:]
        for entry in aip.mets.all_files()
        for event in entry.get_premis_events()
        if event.event_type == "ingestion" and entry.use == "original"
    ]
    assert SMALL_FILES == len(by)
    assert {suffix == "7z"} == {any(name.startswith("7-Zip-") for name in names) for names in by}


@pytest.mark.tool
def test_a_file_url_is_a_source(ingestd: Program, tmp_path: Path, output: Path) -> None:
    source = small_transfer(tmp_path / "with space")

    run = ingestd("ingest", source.as_uri(), "--output", output, "--json")

    assert run.code == 0, run.err
    assert run.result["package_name"] == "with space"
    assert run.result["counts"]["originals"] == SMALL_FILES


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder, and the URL at which a server on this machine offers it."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.tool
def test_an_http_url_of_an_archive_is_fetched(
    web: tuple[Path, str], ingestd: Program, transfer: Path, output: Path
) -> None:
    folder, url = web
    zip_of(transfer, folder / "Papers 1.zip")

    run = ingestd("ingest", f"{url}/Papers%201.zip", "--output", output, "--json")

    assert run.code == 0, run.err
    assert run.result["package_name"] == "Papers 1"
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    assert len(aip.of("original")) == SMALL_FILES


@pytest.mark.tool
def test_an_http_url_that_leads_nowhere_fails_and_says_so(
    web: tuple[Path, str], ingestd: Program, output: Path
) -> None:
    run = ingestd("ingest", f"{web[1]}/nothing.zip", "--output", output, "--json")

    assert run.code in {1, 2}
    assert run.result["error"]["code"] == "source.not_found"
    assert "404" in run.err
    assert stored_below(output) == []


@pytest.mark.tool
@pytest.mark.parametrize(
    ("algorithm", "suffix"),
    [
        ("s7_copy", ".7z"),
        ("s7_lzma", ".7z"),
        ("s7_bzip2", ".7z"),
        ("tar", ".tar"),
        ("tar_gzip", ".tar.gz"),
        ("tar_bzip2", ".tar.bz2"),
        ("tar_zstd", ".tar.zst"),
        ("uncompressed", ""),
    ],
)
def test_every_packing_ends_in_an_aip_that_verifies(
    algorithm: str, suffix: str, ingestd: Program, transfer: Path, output: Path
) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--json", "--set", f"aip_compression_algorithm={algorithm}")

    assert run.code == 0, run.err
    assert run.result["aip"]["format"] == algorithm
    (path,) = stored_below(output)
    assert path.name == f"{run.result['aip']['name']}{suffix}"
    aip = open_aip(path, output.parent / "opened")
    assert len(aip.of("original")) == SMALL_FILES
    assert stored_below(output) == [path]


@pytest.mark.tool
def test_options_checksum_and_descriptive_metadata_are_taken(ingestd: Program, transfer: Path, output: Path) -> None:
    archive = zip_of(transfer, output.parent / "Papers.zip")
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True).stdout.split()[0]

    run = ingestd(
        "ingest",
        archive,
        *("--output", output, "--json"),
        *("--checksum", f"sha256:{digest.upper()}"),
        *("--set", "identify_transfer=false", "--set", "identify_submission_and_metadata=false"),
        *("--set", "identify_before_normalization=false", "--set", "generate_transfer_structure_report=no"),
        *("--dc", "title=Letters", "--dc", "creator=Ada", "--dc", "creator=Grace"),
    )

    assert run.code == 0, run.err
    assert run.result["counts"]["identified"] == 0
    assert run.result["counts"]["metadata"] == 0
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    (mets,) = (aip.folder / "data").glob("METS.*.xml")
    tree = ET.parse(mets)
    creators = [element.text for element in tree.iter("{http://purl.org/dc/elements/1.1/}creator")]
    assert creators == ["Ada", "Grace"]


@pytest.mark.tool
def test_the_metadata_csv_of_a_transfer_is_in_the_mets(ingestd: Program, transfer: Path, output: Path) -> None:
    (transfer / "metadata").mkdir()
    (transfer / "metadata" / "metadata.csv").write_text(
        "filename,dc.title,shelfmark\nobjects/letters/one.txt,A letter,MS 7\n", encoding="utf-8"
    )
    (transfer / "metadata" / "submissionDocumentation").mkdir()
    (transfer / "metadata" / "submissionDocumentation" / "agreement.txt").write_text("Agreed.\n", encoding="utf-8")

    run = ingestd("ingest", transfer, "--output", output, "--json")

    assert run.code == 0, run.err
    assert run.result["counts"]["submission_documentation"] == 1
    aip = open_aip(stored_path(run.result), output.parent / "opened")
    (mets,) = (aip.folder / "data").glob("METS.*.xml")
    text = mets.read_text(encoding="utf-8")
    assert "<dc:title>A letter</dc:title>" in text
    assert "MS 7" in text
    (documentation,) = aip.of("submissionDocumentation")
    assert documentation.endswith("agreement.txt")


@pytest.mark.tool
def test_the_same_source_twice_makes_two_aips(ingestd: Program, transfer: Path, output: Path) -> None:
    first = ingestd("ingest", transfer, "--output", output, "--json")
    second = ingestd("ingest", transfer, "--output", output, "--json")

    assert (first.code, second.code) == (0, 0)
    assert first.result["aip"]["id"] != second.result["aip"]["id"]
    assert len(stored_below(output)) == 2


# --- what is refused


def refused(run_code: int, run_err: str) -> None:
    assert run_code == 2, run_err
    assert "What to do" in run_err
    assert "Traceback" not in run_err


def test_an_unknown_option_is_answered_with_the_nearest_one(ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--set", "normalise=false")

    refused(run.code, run.err)
    assert "did you mean normalize?" in run.err
    assert "request.unknown_option" in run.err
    assert stored_below(output) == []
    assert ingestd.work_folders == []


@pytest.mark.parametrize(
    "option", ["normalize=perhaps", "aip_compression_level=11", "aip_compression_algorithm=rar", "normalize", "=true"]
)
def test_a_wrong_value_of_an_option_is_refused(option: str, ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--set", option)

    refused(run.code, run.err)
    assert stored_below(output) == []


@pytest.mark.parametrize("bad", ["md5", "sha256:zz", "crc32:abcdef", "sha256:" + "0" * 200])
def test_a_checksum_that_is_none_is_refused(bad: str, ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer / "portrait.png", "--output", output, "--checksum", bad)

    refused(run.code, run.err)
    assert stored_below(output) == []


def test_a_checksum_that_does_not_match_fails(ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer / "portrait.png", "--output", output, "--json", "--checksum", "sha256:" + "0" * 64)

    assert run.code == 2, run.err
    assert run.result["error"]["code"] == "source.checksum_mismatch"
    assert stored_below(output) == []


def test_a_source_that_is_not_there_is_refused(ingestd: Program, output: Path) -> None:
    run = ingestd("ingest", "no/such/folder", "--output", output, "--json")

    refused(run.code, run.err)
    assert run.result["outcome"] == "rejected"
    assert run.result["error"]["code"] == "source.not_found"
    assert "no/such/folder" in run.err
    assert stored_below(output) == []
    assert ingestd.work_folders == []


@pytest.mark.parametrize("location", ["rsync://host/a.zip", "ftp://example.org/a.zip", "http://", "file://elsewhere/a"])
def test_a_url_that_cannot_be_a_source_is_refused(location: str, ingestd: Program, output: Path) -> None:
    run = ingestd("ingest", location, "--output", output)

    refused(run.code, run.err)
    assert stored_below(output) == []


@pytest.mark.parametrize("name", ["a/b", "..", " x", "x" * 201, "a\nb"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, ingestd: Program, transfer: Path, output: Path) -> None:
    run = ingestd("ingest", transfer, "--output", output, "--name", name)

    refused(run.code, run.err)
    assert stored_below(output) == []


def test_bad_usage_ends_with_two_and_says_how_it_is_used(ingestd: Program) -> None:
    nothing = ingestd()
    unknown = ingestd("injest", "x")
    lacking = ingestd("ingest")
    wrong = ingestd("ingest", "x", "--ouput", "y")

    assert [run.code for run in (nothing, unknown, lacking, wrong)] == [2, 2, 2, 2]
    assert all("usage: ingestd" in run.err for run in (nothing, unknown, lacking, wrong))


# --- what fails


def failed_with(ingestd: Program, source: Path, output: Path, code: str, *words: str) -> None:
    """Ingest what cannot be: it fails with `code`, says `words`, and stores nothing."""
    run = ingestd("ingest", source, "--output", output, "--json")

    assert run.code in {1, 2}, run.err
    assert (run.result["outcome"], run.code) in {("failed", 1), ("rejected", 2)}
    assert run.result["error"]["code"] == code
    assert [error.message for error in event_schema("EventData").iter_errors(run.result)] == []
    assert "What to do" in run.err
    assert "Traceback" not in run.err
    for word in words:
        assert word in run.err
    assert stored_below(output) == []


def test_an_empty_folder_fails(ingestd: Program, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)

    failed_with(ingestd, tmp_path / "empty", output, "content.empty")


def test_a_folder_of_hidden_files_alone_fails(ingestd: Program, tmp_path: Path, output: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "hidden" / "Thumbs.db").write_bytes(b"x")

    failed_with(ingestd, tmp_path / "hidden", output, "content.empty")


def test_a_symlink_that_leads_out_fails(ingestd: Program, transfer: Path, output: Path) -> None:
    (transfer / "letters" / "secret").symlink_to("/etc/passwd")
    (transfer / "up").symlink_to("..")

    failed_with(ingestd, transfer, output, "content.path_traversal", "letters/secret", "up")


def test_a_fifo_fails_and_nobody_waits_for_its_writer(ingestd: Program, transfer: Path, output: Path) -> None:
    os.mkfifo(transfer / "letters" / "pipe")

    run = ingestd("ingest", transfer, "--output", output, "--json", seconds=20)

    assert run.code == 2, run.err
    assert "letters/pipe" in run.err
    assert stored_below(output) == []


def test_a_fifo_as_the_source_itself_is_refused(ingestd: Program, tmp_path: Path, output: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    run = ingestd("ingest", tmp_path / "pipe", "--output", output, seconds=20)

    refused(run.code, run.err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_all_named(ingestd: Program, transfer: Path, output: Path) -> None:
    (transfer / "portrait.png").chmod(0)
    (transfer / "letters" / "one.txt").chmod(0)

    failed_with(ingestd, transfer, output, "source.access_denied", "portrait.png", "letters/one.txt")


def test_a_zip_that_climbs_out_fails_and_writes_nothing_outside(ingestd: Program, tmp_path: Path, output: Path) -> None:
    with zipfile.ZipFile(tmp_path / "climbs.zip", "w") as archive:
        archive.writestr("good.txt", "good")
        archive.writestr("../../../climbed.txt", "bad")
        archive.writestr("/tmp/climbed-from-root.txt", "bad")

    failed_with(ingestd, tmp_path / "climbs.zip", output, "content.path_traversal", "climbed.txt", "climbed-from-root")

    assert list(tmp_path.rglob("climbed*")) == []
    assert not Path("/tmp/climbed-from-root.txt").exists()


def test_an_encrypted_zip_fails_and_says_that_it_is_encrypted(
    ingestd: Program, transfer: Path, tmp_path: Path, output: Path
) -> None:
    archive = tmp_path / "locked.zip"
    subprocess.run(["7z", "a", "-bd", "-psecret", archive, transfer], check=True, stdout=subprocess.DEVNULL)

    failed_with(ingestd, archive, output, "content.archive_encrypted", "encrypted")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "7z"])
def test_a_truncated_archive_fails(suffix: str, ingestd: Program, transfer: Path, output: Path) -> None:
    (transfer / "long.bin").write_bytes(os.urandom(50_000))
    archive = ARCHIVES[suffix](transfer, output.parent / f"Papers.{suffix}")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])

    failed_with(ingestd, archive, output, "content.archive_corrupt")


def test_a_failed_ingest_says_how_it_is_gone_on_with(ingestd: Program, tmp_path: Path, output: Path) -> None:
    archive = damaged_since(tmp_path / "Papers")

    run = ingestd("ingest", archive, "--output", output)

    assert run.code == 1
    (folder,) = ingestd.work_folders
    assert f"Kept: {folder}" in run.err
    assert f"ingestd resume {folder.name}" in run.err


# --- help and inspection


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, ingestd: Program) -> None:
    run = ingestd(command, "--help")

    assert run.code == 0
    assert run.out.startswith(f"usage: ingestd {command}")
    assert len(run.out.splitlines()) > 4
    assert run.err == ""


def test_the_help_of_ingest_tells_every_processing_option_and_how_it_stands(ingestd: Program) -> None:
    told = ingestd("ingest", "--help").out

    assert "  normalize_for_access=false\n      Make access copies" in told
    assert "  aip_compression_algorithm=s7_copy\n" in told
    assert "tar_zstd" in told


def test_the_help_lists_every_command_and_the_exit_codes(ingestd: Program) -> None:
    run = ingestd("--help")

    assert run.code == 0
    assert [command for command in COMMANDS if f"\n    {command} " not in run.out] == []
    assert "Exit codes: 0 success, 1 failed, 2 rejected or bad usage" in run.out


def test_the_version_is_said(ingestd: Program) -> None:
    assert ingestd("--version").out.startswith("ingestd ")


@pytest.mark.parametrize("describe", [(), ("--describe",)])
def test_config_hides_the_password(describe: tuple[str, ...], tmp_path: Path) -> None:
    ingestd = Program(tmp_path, AMQP__URL="amqp://worker:hunter2@broker.example/v", CONCURRENT_PACKAGES=3)

    run = ingestd("config", *describe)

    assert run.code == 0, run.err
    assert "hunter2" not in run.out + run.err
    assert "concurrent_packages = 3" in run.out
    assert f'data_dir = "{ingestd.data_dir}"' in run.out


def test_a_setting_that_is_wrong_is_named(tmp_path: Path) -> None:
    ingestd = Program(tmp_path, CONCURRENT_PACKAGES="many", TOOLS__PROCESES=3)

    run = ingestd("config")

    refused(run.code, run.err)
    assert "concurrent_packages" in run.err
    assert "tools.proceses" in run.err


def test_settings_are_read_from_a_file_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('concurrent_packages = 7\nlog_level = "debug"\n', encoding="utf-8")
    ingestd = Program(tmp_path, LOG_LEVEL="warning")

    run = ingestd("--config", tmp_path / "settings.toml", "config")

    assert run.code == 0, run.err
    assert "concurrent_packages = 7" in run.out
    assert 'log_level = "warning"' in run.out


@pytest.mark.tool
def test_doctor_lists_tools_with_version_and_purpose(ingestd: Program) -> None:
    words = ingestd("doctor")
    data = ingestd("doctor", "--json")

    assert words.code == data.code == 0, words.out
    found = {tool["name"]: tool for tool in json.loads(data.out)}
    assert all(tool["version"] for tool in found.values() if tool["found"])
    assert all(tool["purpose"] for tool in found.values())
    assert [name for name in found if name not in words.out] == []


def test_workflow_check_proves_the_shipped_workflow(ingestd: Program) -> None:
    run = ingestd("workflow", "check")

    assert run.code == 0, run.err
    assert "sound" in run.out


def test_workflow_check_names_what_is_wrong(ingestd: Program, tmp_path: Path) -> None:
    workflow = json.loads((REPOSITORY / "workflow.json").read_text(encoding="utf-8"))
    step = next(link for link in workflow["links"].values() if "execute" in link["config"])
    step["config"]["execute"] = "recieve_transfer"
    (tmp_path / "wrong.json").write_text(json.dumps(workflow), encoding="utf-8")

    run = ingestd("workflow", "check", tmp_path / "wrong.json")

    refused(run.code, run.err)
    assert "recieve_transfer" in run.err


@pytest.mark.tool
def test_workflow_graph_draws_svg(ingestd: Program, tmp_path: Path) -> None:
    run = ingestd("workflow", "graph", "--output", tmp_path / "workflow.svg")

    assert run.code == 0, run.err
    assert ET.parse(tmp_path / "workflow.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_schemas_writes_what_the_repository_publishes(ingestd: Program, tmp_path: Path) -> None:
    run = ingestd("schemas", tmp_path / "schemas")

    assert run.code == 0, run.err
    written = {path.name: path.read_bytes() for path in (tmp_path / "schemas").iterdir()}
    published = {path.name: path.read_bytes() for path in (REPOSITORY / "schemas").iterdir()}
    assert written == published


def test_a_broker_that_is_not_there_is_said_at_once(tmp_path: Path, transfer: Path) -> None:
    ingestd = Program(tmp_path, AMQP__URL="amqp://guest:guest@127.0.0.1:1/")

    runs = [ingestd(*words, seconds=20) for words in (("topology",), ("submit", transfer), ("watch",))]

    assert [run.code for run in runs] == [1, 1, 1]
    assert all("dependency.broker" in run.err and "What to do" in run.err for run in runs)
    assert all("Traceback" not in run.err for run in runs)


def test_what_is_wrong_is_told_before_anything_is_done(ingestd: Program, transfer: Path) -> None:
    good = ingestd("validate", transfer)
    (transfer / "metadata").mkdir(exist_ok=True)
    (transfer / "metadata" / "metadata.csv").write_text("filename;dc.title\n", encoding="utf-8")
    (transfer / "metadata" / "checksum.md5").write_text("half\n", encoding="utf-8")
    bad = ingestd("validate", transfer, "--set", "normalise=true", "--json")

    assert good.code == 0, good.err
    assert "nothing was found" in good.out
    assert bad.code == 2
    assert {
        "request.unknown_option",
        "content.checksum_manifest_mismatch",
        "content.metadata_invalid",
    } == {error["code"] for error in bad.result["errors"]}
    assert all(error["remediation"] for error in bad.result["errors"])
    assert ingestd.work_folders == []


def test_a_package_that_failed_is_listed_fetched_and_removed(ingestd: Program, tmp_path: Path, output: Path) -> None:
    with zipfile.ZipFile(tmp_path / "letters.zip", "w") as archive:
        archive.writestr("letter.txt", "Dear all")
    damaged = (tmp_path / "letters.zip").read_bytes().replace(b"Dear all", b"Dear ALL")
    (tmp_path / "letters.zip").write_bytes(damaged)
    failed = ingestd("ingest", tmp_path / "letters.zip", "--output", output)
    (folder,) = ingestd.work_folders

    listed = ingestd("packages")
    fetched = ingestd("packages", "fetch", folder.name, tmp_path / "here")
    clean = ingestd("packages", "clean", "--dry-run")
    removed = ingestd("packages", "remove", folder)
    empty = ingestd("packages")

    assert failed.code == 1, failed.err
    assert folder.name in listed.out
    assert "failed" in listed.out
    assert fetched.code == 0, fetched.err
    assert (tmp_path / "here" / folder.name / "journal.db").is_file()
    assert clean.out == "there is nothing to remove\n"
    assert removed.code == 0, removed.err
    assert ingestd.work_folders == []
    assert empty.out == "no package is kept\n"
