"""Secrets of the settings and of requests are in nothing that a run writes: not in logs, events, results, or AIPs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acceptance.program import NO_DERIVATIVES
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.tool]

BROKER, ACCESS, SECRET, TOKEN, ACCOUNT, SAS, PASSWORD, PASSPHRASE = (f"s3cr3t-{name}-v4lue" for name in "bastcxpq")
USERINFO, SIGNATURE = "s3cr3t-userinfo-v4lue", "s3cr3t-signature-v4lue"


SEVERAL = """
import json, sys
from ingestd.cli.main import main

for arguments in json.loads(sys.argv[1]):
    for stream in (sys.stdout, sys.stderr):
        print(f"--- {arguments}", file=stream, flush=True)
    try:
        main(["--log-level", "debug", *arguments])
    except SystemExit as end:
        print(end)
"""
"""Commands one after the other, each as a user gives it, in one process: its start takes longer than most of them."""


def run(folder: Path, *commands: Sequence[str | Path]) -> str:
    """Run commands with secrets in their settings; give all they say."""
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
        "INGESTD_PREFLIGHT__MAX_SECONDS": "2",
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    given = json.dumps([[str(word) for word in command] for command in commands])
    environment = {**kept, **mine, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-c", SEVERAL, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert 2 * len(commands) == (done.stdout + done.stderr).count("--- [")
    return done.stdout + done.stderr


def secrets_in(said: str, folder: Path) -> list[str]:
    """Name the files, or `said`, that hold a secret."""
    found = ["said"] if "s3cr3t" in said else []
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [*found, *(str(path.relative_to(folder)) for path in files if b"s3cr3t" in path.read_bytes())]


def test_no_command_shows_a_secret_or_writes_one_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")

    said = run(
        tmp_path,
        ("ingest", source, "--json"),
        ("config", "--describe"),
        ("doctor",),
        ("submit", "/nowhere"),
        ("topology",),
        ("watch",),
        ("validate", "s3://bucket/key/", "--credentials", "shop", "--json"),
    )

    assert '"succeeded' in said
    assert "dependency.broker" in said
    assert "did not answer" in said
    assert [] == secrets_in(said, tmp_path)


def test_the_secrets_of_a_location_are_not_told(tmp_path: Path) -> None:
    locations = (
        f"http://me:{USERINFO}@127.0.0.1:9/a.zip",
        f"http://me:a/{USERINFO}@127.0.0.1:9/a.zip",
        f"https://127.0.0.1:9/a.zip?X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={TOKEN}",
        f"http://127.0.0.1:9/a.zip?sv=1&sig={SIGNATURE}",
        f"http://127.0.0.1:9/a.zip#{SIGNATURE}",
        f"ftp://me:{USERINFO}@host/a",
        f"s3://me:{USERINFO}@bucket/key",
    )

    said = run(tmp_path, *(("ingest", location, "--json", "--name", "a") for location in locations))

    told = "".join(line for line in said.splitlines(keepends=True) if not line.startswith("--- "))  # not what was asked
    assert all(word in told for word in ("a.zip", "ftp://", "s3://"))
    assert [path for path in secrets_in(told, tmp_path) if not path.startswith("data/service.db")] == []
