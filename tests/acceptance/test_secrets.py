"""Secrets of the settings and of requests are in nothing that a run writes: not in logs, events, results, or AIPs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.program import NO_DERIVATIVES
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.tool]

BROKER, ACCESS, SECRET, TOKEN, ACCOUNT, SAS, PASSWORD, PASSPHRASE = (f"s3cr3t-{name}-v4lue" for name in "bastcxpq")
USERINFO, SIGNATURE = "s3cr3t-userinfo-v4lue", "s3cr3t-signature-v4lue"


def run(folder: Path, *arguments: str | Path) -> str:
    """Run a command with secrets in its settings; give all it says."""
    account = {
        "endpoint": "http://127.0.0.1:9",
        "access_key_id": ACCESS,
        "secret_access_key": SECRET,
        "session_token": TOKEN,
        "account_key": ACCOUNT,
        "sas_token": SAS,
        "password": PASSWORD,
        "passphrase": PASSPHRASE,
    }
    mine = {
        "INGESTD_DATA_DIR": str(folder / "data"),
        "INGESTD_AMQP__URL": f"amqp://me:{BROKER}@127.0.0.1:9/",
        "INGESTD_CREDENTIALS": json.dumps({"shop": account}),
        "INGESTD_CLAMAV__SCANNER": "off",
        "INGESTD_LOG_FORMAT": "json",
        "INGESTD_SOURCES__HTTP_ATTEMPTS": "1",
        "INGESTD_PROCESSING": json.dumps({**NO_DERIVATIVES, "aip_compression_algorithm": "uncompressed"}),
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    command = [sys.executable, "-m", "ingestd", "--log-level", "debug", *map(str, arguments)]
    environment = {**kept, **mine, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout + done.stderr


def secrets_in(said: str, folder: Path) -> list[str]:
    """Name the files, or `said`, that hold a secret."""
    found = ["said"] if "s3cr3t" in said else []
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [*found, *(str(path.relative_to(folder)) for path in files if b"s3cr3t" in path.read_bytes())]


def test_an_ingest_writes_none_of_the_settings_secrets_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")

    said = run(tmp_path, "ingest", source, "--json")

    assert '"succeeded' in said
    assert [] == secrets_in(said, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "--describe"),
        ("doctor",),
        ("submit", "/nowhere"),
        ("topology",),
        ("watch",),
    ],
)
def test_no_command_shows_a_secret(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert [] == secrets_in(run(tmp_path, *arguments), tmp_path)


@pytest.mark.parametrize(
    "location",
    [
        f"http://me:{USERINFO}@127.0.0.1:9/a.zip",
        f"https://127.0.0.1:9/a.zip?X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={TOKEN}",
        f"http://127.0.0.1:9/a.zip?sv=1&sig={SIGNATURE}",
        f"ftp://me:{USERINFO}@host/a",
        f"s3://me:{USERINFO}@bucket/key",
    ],
)
def test_the_secrets_of_a_location_are_not_told(tmp_path: Path, location: str) -> None:
    said = run(tmp_path, "ingest", location, "--json", "--name", "a")

    assert said
    assert [path for path in secrets_in(said, tmp_path) if not path.startswith("data/service.db")] == []


def test_a_source_in_a_store_that_is_away_names_no_key_of_ours(tmp_path: Path) -> None:
    said = run(tmp_path, "ingest", "s3://bucket/key/", "--credentials", "shop", "--json")

    assert "bucket" in said
    assert [] == secrets_in(said, tmp_path)
