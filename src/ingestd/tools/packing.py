"""AIPs packed into one file. `packed` reads them back."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd import premis
from ingestd.errors import ToolError
from ingestd.messages import CompressionAlgorithm
from ingestd.oais import Package
from ingestd.tools.pool import Argument, Limits, Pool
from ingestd.tools.run import Run
from ingestd.workfolder import ran_out

ENCRYPTED = ".gpg"
_SUFFIXES = {
    CompressionAlgorithm.UNCOMPRESSED: "",
    CompressionAlgorithm.TAR: ".tar",
    CompressionAlgorithm.TAR_GZIP: ".tar.gz",
    CompressionAlgorithm.TAR_BZIP2: ".tar.bz2",
    CompressionAlgorithm.TAR_ZSTD: ".tar.zst",
    CompressionAlgorithm.S7_COPY: ".7z",
    CompressionAlgorithm.S7_LZMA: ".7z",
    CompressionAlgorithm.S7_BZIP2: ".7z",
}
_METHODS = {
    CompressionAlgorithm.S7_COPY: "copy",
    CompressionAlgorithm.S7_LZMA: "lzma",
    CompressionAlgorithm.S7_BZIP2: "bzip2",
}
_COMPRESSORS = {
    CompressionAlgorithm.TAR_GZIP: ("gzip", ("pigz", "gzip")),
    CompressionAlgorithm.TAR_BZIP2: ("bzip2", ("pbzip2", "bzip2")),
    CompressionAlgorithm.TAR_ZSTD: ("zstd", ("zstd",)),
}
# The same folder gives the same bytes: sorted, owned by nobody, without times of access and of this machine.
_TAR = (
    "tar", "--create", "--format=pax", "--sort=name", "--owner=0", "--group=0", "--numeric-owner",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\d.])(\d+(?:\.\d+)+)")
_NO_SPACE = re.compile(r"no space left|not enough space|wrote only", re.IGNORECASE)
_PATIENCE_SECONDS = 14 * 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A packed AIP. `detail` words it for PREMIS eventDetail: `program="7-Zip"; version="26.02"; algorithm="copy"`."""

    path: Path
    program: str
    version: str
    detail: str
    programs: Sequence[premis.Program]
    seconds: float


def suffix(algorithm: CompressionAlgorithm) -> str:
    """Give what the name of such a file ends with; empty for an AIP that stays a folder."""
    return _SUFFIXES[algorithm]


def algorithm_of(package: Package) -> CompressionAlgorithm:
    """How a package asks for its AIP to be packed."""
    return CompressionAlgorithm(str(package.processing["aip_compression_algorithm"]))


def packed_name(package: Package) -> str:
    """Give the name of a packed AIP, or of its folder."""
    return f"{package.label}{suffix(algorithm_of(package))}"


def stored_name(package: Package) -> str:
    """Give the name under which an AIP is stored: of what was packed, and encrypted if that was asked for."""
    return f"{packed_name(package)}{ENCRYPTED if package.processing.get('encrypt_aip') else ''}"


async def pack(pool: Pool, folder: Path, into: Path, algorithm: CompressionAlgorithm, level: int) -> Packed:
    """Pack `folder`, under its own name, into the file `into`, which is replaced and is on disk when this returns.

    `level` goes from 1 (fast) to 9 (small). What an interrupted packing left is never taken up. Raises `ToolError`, or
    `ResourceError` where there is no room.
    """
    partial = into.with_name(f"{into.name}.partial")
    await asyncio.to_thread(partial.unlink, missing_ok=True)
    method = _METHODS.get(algorithm)
    try:
        packed = await (
            _seven_zip(pool, folder, partial, method, level)
            if method
            else _tar(pool, folder, partial, algorithm, level)
        )
        await asyncio.to_thread(keep, partial, into)
    except ToolError as error:
        full = ran_out(into.parent) if _NO_SPACE.search(error.stderr_tail) else None
        partial.unlink(missing_ok=True)
        raise full or error from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return replace(packed, path=into)


async def _seven_zip(pool: Pool, folder: Path, into: Path, method: str, level: int) -> Packed:
    # No filters (-mf=off): 7-Zip puts a delta filter on sound even where it only copies, which libarchive cannot read.
    argv: list[Argument] = [
        "7z", "a", "-bd", "-y", "-t7z", f"-m0={method}", f"-mx={level}", "-mtc=on", "-mtm=on", "-mta=on", "-mmt=on",
        "-mf=off", "-spd", "--", into, folder.name,
    ]  # fmt: skip
    run = await pool.run(argv, cwd=folder.parent, limits=_patient(pool), writes=[into.parent], name="7-Zip")
    run.check("7-Zip")
    version = _version(run.stdout)
    return _packed(into, premis.Program("7-Zip", version), {"algorithm": method}, run)


async def _tar(pool: Pool, folder: Path, into: Path, algorithm: CompressionAlgorithm, level: int) -> Packed:
    argv: list[Argument] = [*_TAR, f"--file={into}", f"--directory={folder.parent}"]
    more: dict[str, str] = {}
    compressors: list[premis.Program] = []
    if algorithm in _COMPRESSORS:
        name, programs = _COMPRESSORS[algorithm]
        compressor = next((program for program in programs if pool.which(program)), programs[-1])
        number = await _version_of(pool, compressor)
        argv.append(f"--use-compress-program={_command(compressor, level)}")
        more = {"algorithm": name, "compressor": f"{compressor} {number}".strip()}
        compressors = [premis.Program(compressor, number)]
    version = await _version_of(pool, "tar")
    # `--add-file` takes a name that starts with a dash for a name.
    argv.append(f"--add-file={folder.name}")
    run = await pool.run(argv, limits=_patient(pool), writes=[into.parent], name="tar")
    run.check("tar", version)
    return _packed(into, premis.Program("tar", version), more, run, compressors)


def _packed(
    into: Path, program: premis.Program, more: Mapping[str, str], run: Run, others: Sequence[premis.Program] = ()
) -> Packed:
    return Packed(
        path=into,
        program=program.name,
        version=program.version,
        detail=program.words(**more),
        programs=[program, *others],
        seconds=run.seconds,
    )


def _command(compressor: str, level: int) -> str:
    options = {"pigz": f"-n -{level}", "gzip": f"-n -{level}", "zstd": f"-q -T0 -{level}"}
    return f"{compressor} {options.get(compressor, f'-{level}')}"


async def _version_of(pool: Pool, program: str) -> str:
    """Ask a program's version; it says it on standard output or, some, as an error. Raises if it is not installed."""
    run = await pool.run([program, "--version"], stdin=b"", name=program)
    return _version(run.stdout) or _version(run.stderr_tail.encode())


def _version(output: bytes) -> str:
    found = _NUMBER.search(output.decode("utf-8", errors="replace"))
    return found[1] if found else ""


def _patient(pool: Pool) -> Limits:
    """Packing is as long as the AIP is large, and its memory grows with the processors: only silence ends it."""
    return replace(pool.limits, wall_seconds=max(pool.limits.wall_seconds, _PATIENCE_SECONDS), memory_bytes=0)


def keep(partial: Path, into: Path) -> None:
    """Give a file that is whole its name, when it is on disk; blocks."""
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(into)
