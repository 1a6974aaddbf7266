"""GnuPG: encrypting packed AIPs to the public keys of the settings. What is encrypted here cannot be decrypted here.

Each run has a key ring of its own, made from the file with the keys and thrown away afterwards; no agent is started.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd.errors import Code, SystemFault, Violation
from ingestd.keeping import EncryptionSettings
from ingestd.tools.packing import keep
from ingestd.tools.pool import Argument, Limits, Pool

NAME = "GPG"
"""The program as Archivematica's pointer files name it."""
_VERSION = re.compile(rb"\b\d+(?:\.\d+)+")
_PATIENCE_SECONDS = 14 * 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Encrypted:
    """An encrypted file: by which program, and for whom (fingerprints)."""

    version: str
    keys: Sequence[str]


async def prove_keys(pool: Pool, settings: EncryptionSettings) -> None:
    """Raise `SystemFault` (`system.configuration`), which names every recipient that is wrong, unless something can be
    encrypted to all recipients of the settings; `ToolError` where gpg is not installed.
    """
    async with _key_ring(pool, settings):
        pass


async def encrypt(pool: Pool, settings: EncryptionSettings, source: Path, into: Path) -> Encrypted:
    """Encrypt `source` into the file `into`, which is replaced and is on disk when this returns.

    What an interrupted run left is never taken up. Raises as `prove_keys`; `ToolError` when gpg fails.
    """
    partial = into.with_name(f"{into.name}.partial")
    recipients = [option for key in settings.recipients for option in ("--recipient", key)]
    # A packed AIP is compressed or was not meant to be: to do it again costs time alone.
    options = ["--trust-model", "always", "--cipher-algo", "AES256", "--compress-algo", "none", "--set-filename", ""]
    async with _key_ring(pool, settings) as gpg:
        await asyncio.to_thread(partial.unlink, missing_ok=True)
        try:
            argv: list[Argument] = [*gpg, *options, *recipients, "--output", partial, "--encrypt", "--", source]
            run = await pool.run(argv, limits=_patient(pool), stdin=b"", writes=[into.parent], name="GnuPG")
            run.check("GnuPG")
            await asyncio.to_thread(keep, partial, into)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        version = _VERSION.search((await pool.run([*gpg, "--version"], stdin=b"", name="GnuPG")).stdout)
    return Encrypted(version=version[0].decode() if version else "", keys=settings.recipients)


@asynccontextmanager
async def _key_ring(pool: Pool, settings: EncryptionSettings) -> AsyncIterator[Sequence[Argument]]:
    """Give the command with a key ring in which every recipient is known, and fit to encrypt to."""
    if not settings.recipients or settings.keys is None:
        missing = [name for name in ("recipients", "keys") if not getattr(settings, name)]
        raise _unfit([Violation(path=f"encryption.{name}", rule="missing") for name in missing])
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="gpg-", dir=pool.home()))
    try:
        gpg: list[Argument] = [
            "gpg",
            "--homedir",
            home,
            "--batch",
            "--no-tty",
            "--no-options",
            "--no-autostart",
            "--quiet",
        ]
        imported = await pool.run([*gpg, "--import", "--", settings.keys], stdin=b"", name="GnuPG")
        listed = await pool.run([*gpg, "--with-colons", "--fingerprint", "--list-keys"], stdin=b"", name="GnuPG")
        usable = _usable(listed.stdout.decode("utf-8", "replace"))
        if not usable and not imported.ok:
            raise _unfit([Violation(path="encryption.keys", rule="unreadable", actual="no public keys in this file")])
        wrong = [_wrong(key, usable) for key in settings.recipients if not usable.get(key)]
        if wrong:
            raise _unfit(wrong)
        yield gpg
    finally:
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


def _wrong(key: str, usable: dict[str, bool]) -> Violation:
    actual = (
        "a key that has expired, was revoked or does not encrypt" if key in usable else "no key of this fingerprint"
    )
    return Violation(path="encryption.recipients", rule="key", expected=key, actual=actual)


def _usable(listing: str) -> dict[str, bool]:
    """Say of each primary key, by its fingerprint, whether it encrypts now (gpg's DETAILS: capital E)."""
    found: dict[str, bool] = {}
    capable: bool | None = None
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] == "pub" and len(fields) > 11:
            capable = "E" in fields[11] and "D" not in fields[11]
        elif fields[0] == "fpr" and capable is not None and len(fields) > 9:
            found[fields[9]] = capable
            capable = None
    return found


def _unfit(violations: Sequence[Violation]) -> SystemFault:
    return SystemFault(
        "AIPs cannot be encrypted with these settings",
        code=Code.SYSTEM_CONFIGURATION,
        violations=tuple(violations),
        remediation="Set encryption.recipients to fingerprints of keys that encrypt, and encryption.keys to a file "
        "with their public keys (`gpg --export --armor FINGERPRINT > keys.asc`); or do without encrypt_aip.",
    )


def _patient(pool: Pool) -> Limits:
    """Encrypting is as long as the AIP is large: only silence ends it."""
    return replace(pool.limits, wall_seconds=max(pool.limits.wall_seconds, _PATIENCE_SECONDS))
