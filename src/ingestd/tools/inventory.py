"""What is installed of everything that ingestd can use, for `ingestd doctor` and for the warnings of a result."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from ingestd.config import Sandbox
from ingestd.errors import ToolError
from ingestd.tools.confine import landlock_abi
from ingestd.tools.pool import Pool

CORE = "core"
OWN_RELEASES = "its own releases"
"""The package of a program that neither Debian nor PyPI has."""

_NUMBER = re.compile(r"(?<![\d.])\d+(?:\.\d+)+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolInfo:
    """A program or library. `package` is what to install: a Debian package, or the Python distribution's name.

    `needed_for` is `core` where nothing works without it, else the processing options or input formats that lose
    something. `version` is empty where it is not found or does not say.
    """

    name: str
    purpose: str
    package: str
    needed_for: str
    version: str = ""
    found: bool = False
    is_library: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Program:
    name: str
    argv: tuple[str, ...]
    purpose: str
    package: str
    needed_for: str


def _p(name: str, argv: str, purpose: str, package: str, needed_for: str) -> _Program:
    return _Program(name=name, argv=tuple(argv.split()), purpose=purpose, package=package, needed_for=needed_for)


PROGRAMS = (
    _p("setpriv", "setpriv --version", "Makes programs end when the service dies.", "util-linux", CORE),
    _p("prlimit", "prlimit --version", "Limits the memory and the files of programs.", "util-linux", CORE),
    _p("tar", "tar --version", "Packs AIPs as tar.", "tar", "aip_compression_algorithm: tar…"),
    _p("7-Zip", "7z i", "Packs AIPs as 7z and opens many archives.", "p7zip-full", "aip_compression_algorithm: s7_…"),
    _p("pigz", "pigz --version", "Compresses tar.gz on all processors.", "pigz", "speed of tar_gzip"),
    _p("gzip", "gzip --version", "Compresses tar.gz.", "gzip", "aip_compression_algorithm: tar_gzip"),
    _p("pbzip2", "pbzip2 --version", "Compresses tar.bz2 on all processors.", "pbzip2", "speed of tar_bzip2"),
    _p("bzip2", "bzip2 --help", "Compresses tar.bz2.", "bzip2", "aip_compression_algorithm: tar_bzip2"),
    _p("zstd", "zstd --version", "Compresses tar.zst.", "zstd", "aip_compression_algorithm: tar_zstd"),
    _p("GnuPG", "gpg --version", "Encrypts AIPs.", "gpg", "encrypt_aip"),
    _p(
        "ExifTool", "exiftool -ver", "Reads technical metadata of images, documents and media.",
        "libimage-exiftool-perl", "characterization",
    ),
    _p("clamscan", "clamscan --version", "Looks for malware where no clamd runs.", "clamav", "scan_for_viruses"),
    _p("Graphviz", "dot -V", "Draws the workflow.", "graphviz", "ingestd workflow graph"),
    _p(
        "bulk_extractor", "bulk_extractor -V", "Looks for personal data in files.", OWN_RELEASES,
        "examine_contents",
    ),
    _p("ffprobe", "ffprobe -version", "Reads technical metadata of sound and film.", "ffmpeg", "characterization"),
)  # fmt: skip

LIBRARIES = (
    ("pygfried", "Identifies formats with Siegfried and PRONOM.", "identify_transfer"),
    ("pymediainfo", "Reads technical metadata with MediaInfo.", "characterization"),
    ("libarchive-c", "Opens archives, and reads packed AIPs back to verify them.", CORE),
    ("metsrw", "Checks METS documents.", CORE),
    ("lxml", "Reads and validates XML.", CORE),
    ("bagit", "Checks bags.", CORE),
    ("aio-pika", "Talks to RabbitMQ.", "ingestd serve"),
    ("aiosqlite", "Keeps the journals.", CORE),
    ("obstore", "Reads and writes S3, Azure and Google Cloud Storage.", "s3://, az:// and gs://: ingestd[cloud]"),
    (
        "botocore", "Goes on with uploads to S3 that were cut short, and completes them on a condition.",
        "files over 8 MiB to s3:// locations, which begin anew without it: ingestd[s3]",
    ),
    ("asyncssh", "Stores AIPs on SFTP servers.", "locations on SFTP servers: ingestd[sftp]"),
    ("pydantic", "Checks requests and settings.", CORE),
    ("structlog", "Writes the log.", CORE),
    ("Unidecode", "Makes file names safe.", CORE),
    ("aiofiles", "Reads and writes small files.", CORE),
    ("prometheus-client", "Shows metrics.", "ingestd serve"),
)  # fmt: skip


async def inventory(pool: Pool) -> Sequence[ToolInfo]:
    """Ask every program for its version, and the Python environment for the libraries'."""
    programs = await asyncio.gather(*(_ask(pool, program) for program in PROGRAMS))
    return [*programs, *(_library(*library) for library in LIBRARIES)]


_PROBE = """
import os, socket, sys
def works(attempt, *values):
    try:
        attempt(*values)
    except OSError:
        return False
    return True
print(int(works(os.mkdir, sys.argv[1])), int(works(socket.socket, socket.AF_INET)))
"""


async def confinement(pool: Pool) -> str:
    """Say in a sentence how programs are confined here, as one of them has just found out."""
    settings = f"tools.sandbox is `{pool.settings.sandbox}`"
    if not pool.confined:
        why = "" if pool.settings.sandbox is Sandbox.OFF else ", but this kernel has no Landlock that may be used"
        return f"programs are not confined ({settings}{why})"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
        try:
            run = await pool.run([sys.executable, "-I", "-S", "-c", _PROBE, str(Path(outside, "new"))], name="Python")
            writes, connects = (word != b"0" for word in run.check().stdout.split())
        except ToolError as error:
            return f"programs cannot be run ({settings}): {error.detail}: {error.stderr_tail.strip()}"
    files = "can write ANYWHERE" if writes else "write only where their result is to be"
    network = "HAVE the network" if connects else "have no network"
    return f"programs {files}, and {network} ({settings}; Landlock ABI {landlock_abi()})"


async def _ask(pool: Pool, program: _Program) -> ToolInfo:
    info = ToolInfo(name=program.name, purpose=program.purpose, package=program.package, needed_for=program.needed_for)
    try:
        run = await pool.run(program.argv, stdin=b"", name=program.name)
    except ToolError:
        return info
    number = _NUMBER.search(run.stdout.decode("utf-8", errors="replace") or run.stderr_tail)
    return replace(info, found=True, version=number[0] if number else "")


def _library(name: str, purpose: str, needed_for: str) -> ToolInfo:
    info = ToolInfo(name=name, purpose=purpose, package=name, needed_for=needed_for, is_library=True)
    try:
        return replace(info, found=True, version=metadata.version(name))
    except metadata.PackageNotFoundError:
        return info
