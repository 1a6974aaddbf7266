"""Rules of a site whose programs behave badly, in whole ingests: the AIP is made, each is warned of, nothing is left."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingestd
from ingestd.config import Settings
from ingestd.messages import EventData, Outcome
from ingestd.tools import confine
from tests.acceptance.aips import open_aip, stored_path
from tests.acceptance.program import NO_DERIVATIVES

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(not confine.landlock_abi(), reason="this kernel has no Landlock"),
]

OUT = '"%outputDirectory%%prefix%%fileName%%postfix%.txt"'
BEHAVIOUR = {
    "hangs": ("sleep 600", "tool.timeout"),
    "ignores-sigterm": ("trap '' TERM; while :; do sleep 600; done", "tool.timeout"),
    "daemon": ("setsid sh -c 'sleep 601' >/dev/null 2>&1 & setsid sleep 602 & exit 1", "tool.normalization_failed"),
    "gigabyte": ("head -c 1000000000 /dev/zero", "tool.bad_output"),
    "gigabyte-on-disk": ("head -c 1000000000 /dev/zero > %outputDirectory%big", "tool.normalization_failed"),
    "memory": ("python3 -c 'bytes(10**9)'", "tool.killed_memory"),
    "nothing": ("exit 0", "tool.normalization_failed"),
    "empty": (f": > {OUT}", "tool.normalization_failed"),
    "link": (f"ln -s /etc/passwd {OUT}", "tool.normalization_failed"),
    "fifo": (f"mkfifo {OUT}", "tool.normalization_failed"),
    "crash": ("kill -SEGV $$", "tool.normalization_failed"),
    "outside": ("echo changed > %inputFile%; echo x > %SIPObjectsDirectory%x; exit 1", "tool.normalization_failed"),
    "says-yes": (f"rm -f %inputFile%; touch %SIPDirectory%x %processingDirectory%y; echo made > {OUT}", ""),
    "network": (f"exec 3<>/dev/tcp/127.0.0.1/PORT && echo reached >&3; echo made > {OUT}", ""),
}
RECORDS = """
[[tool]]
id = "bad"
name = "Bad"
program = "sh"

[[command]]
id = "bad"
tool = "bad"
usage = "normalization"
description = "behaves badly, by the name of its file"
script_type = "bashScript"
output_location = "%outputDirectory%%prefix%%fileName%%postfix%.txt"
output_format = "x-fmt/111"
verification = "is-not-empty"

script = '''
case %fileName% in
CASES
esac
'''

[[command]]
id = "is-not-empty"
tool = "bad"
usage = "verification"
description = "is something"
script_type = "command"
script = "test -e %outputLocation%"

[[rule]]
purpose = "preservation"
format = "x-fmt/111"
command = "bad"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not below /tmp, where a confined program may remove files.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


async def preserved(folder: Path, port: int) -> EventData:
    cases = "\n".join(f"{name}) {script} ;;" for name, (script, _) in BEHAVIOUR.items())
    source, rules = folder / "source", folder / "fpr.d"
    for made in (source, rules):
        made.mkdir()
    for name in BEHAVIOUR:
        (source / f"{name}.txt").write_text(f"the original of {name}\n")
    (rules / "bad.toml").write_text(RECORDS.replace("CASES", cases.replace("PORT", str(port))))
    settings = Settings(
        data_dir=folder / "data",
        fpr_folders=[rules],
        clamav={"scanner": "off"},
        tools={"processes": 4, "wall_seconds": 3, "memory_bytes": 300 * 2**20, "output_bytes": 2**20},
        normalization={"ratio_from_bytes": 2**20, "max_ratio": 1},
        processing={**NO_DERIVATIVES, "normalize": True, "validate_formats": False, "aip_compression_algorithm": "tar"},
    )
    async with ingestd.open(settings) as ingest:
        return await ingest.preserve(source)


async def running(folder: Path) -> list[str]:
    """Command lines of what still runs with this folder as its home, after a moment to go."""
    until = time.monotonic() + 5
    while (found := list(_running(folder))) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return found


def _running(folder: Path) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"HOME={folder}".encode() in (entry / "environ").read_bytes():
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


async def test_programs_that_behave_badly_cost_their_copies_alone(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        result = await preserved(folder, server.getsockname()[1])
        reached = True
        try:
            server.accept()
        except BlockingIOError:
            reached = False

    assert Outcome.SUCCEEDED_WITH_WARNINGS is result.outcome, result.error
    told = {str(each.code): each.count for each in result.warnings}
    assert Counter(code for _, code in BEHAVIOUR.values() if code) <= Counter(told)
    aip = open_aip(stored_path(result.model_dump(mode="json")), folder / "opened")
    kept = {Path(path).stem: (aip.folder / "data" / path).read_text() for path in aip.of("original")}
    assert {name: f"the original of {name}\n" for name in BEHAVIOUR} == kept
    assert not reached
    assert [] == await running(folder)
    assert [] == list((folder / "data" / "work").iterdir())
    assert [] == list((folder / "data" / "scratch").iterdir())
