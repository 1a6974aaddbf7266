"""Settings on where AIPs are kept: locations, accounts that they need, encryption."""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from ingestd.sections import LocalPath, Model


def _fingerprint(value: str) -> str:
    digits = value.replace(" ", "").removeprefix("0x").upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", digits):
        raise ValueError("a fingerprint has 40 or 64 hexadecimal digits; shorter names may be somebody else's")
    return digits


def _host_key(value: str) -> str:
    if not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", value):
        raise ValueError("the fingerprint of a host key is SHA256: and 43 characters, as `ssh-keygen -lf` prints it")
    return value


class CredentialSettings(Model):
    """An account at an object store, for sources and for archival storage, or at an SFTP server, for archival storage.
    Requests name it and hold no secret.
    """

    folder: LocalPath | None = None
    """A folder with a file per secret, named like the settings below, as mounted by an orchestrator: read again within
    a minute when they are renewed (S3 and Azure), or for the next connection (SFTP)."""
    endpoint: str = ""
    """Where the store is, if not at its vendor: `https://s3.example.org`."""
    region: str = ""
    """Region (S3)."""
    access_key_id: SecretStr = SecretStr("")
    """Access key (S3)."""
    secret_access_key: SecretStr = SecretStr("")
    """Secret key (S3)."""
    session_token: SecretStr = SecretStr("")
    """Session token (S3)."""
    account_name: str = ""
    """Storage account (Azure)."""
    account_key: SecretStr = SecretStr("")
    """Key of the storage account (Azure)."""
    sas_token: SecretStr = SecretStr("")
    """Shared access signature (Azure)."""
    service_account: LocalPath | None = None
    """Key file of a service account (Google Cloud)."""
    password: SecretStr = SecretStr("")
    """Password (SFTP). The user stands in the location's URL."""
    private_key: LocalPath | None = None
    """File with a private key, as `ssh-keygen` writes it (SFTP)."""
    passphrase: SecretStr = SecretStr("")
    """Passphrase of the private key (SFTP)."""
    host_keys: tuple[Annotated[str, AfterValidator(_host_key)], ...] = ()
    """Fingerprints of host keys that the server may show (SFTP): `SHA256:…`, as `ssh-keygen -lf` prints them; that of
    its Ed25519 key, where it has one."""
    known_hosts: LocalPath | None = None
    """A file of known hosts (SFTP), in OpenSSH's format. With neither this nor `host_keys`: `~/.ssh/known_hosts`."""
    anonymous: bool = False
    """Ask without any credentials, as sources are asked whose requests name none. Otherwise what is not set here is
    what the environment offers: variables of the vendor, a role of the machine, the user's SSH agent and keys."""

    def secret(self, name: str) -> str:
        """Give a secret: from its file in the folder, if there is one, read now; else from the settings."""
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError):
                return (self.folder / name).read_text(encoding="utf-8").strip()
        return str(getattr(self, name).get_secret_value())


class EncryptionSettings(Model):
    """Encryption of AIPs with GnuPG, for requests with `encrypt_aip`. Only public keys are ever needed here."""

    recipients: tuple[Annotated[str, AfterValidator(_fingerprint)], ...] = ()
    """Fingerprints of the keys that AIPs are encrypted to; whoever has one of them can decrypt."""
    keys: LocalPath | None = None
    """A file with these public keys, as `gpg --export` writes it, with `--armor` or without."""


class Layout(StrEnum):
    """How AIPs lie in archival storage."""

    PAIRTREE = "pairtree"
    OCFL = "ocfl"


class LocationSettings(Model):
    """A place that keeps AIPs (`url`), or a target made of several such places (`locations`)."""

    url: str = ""
    """`file:///folder`, `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX` or
    `sftp://USER@HOST:PORT/FOLDER`."""
    credentials: str = ""
    """The name of an account in `credentials`; empty for what the environment offers."""
    endpoint: str = ""
    """Where the object store is, if neither at its vendor nor where the credentials say."""
    layout: Layout = Layout.PAIRTREE
    """`pairtree`: Archivematica's, the UUID in groups of four; `ocfl`: an OCFL 1.1 storage root, with versions."""
    locations: tuple[str, ...] = ()
    """Names of the places that this target stores on."""
    min_copies: Annotated[int, Field(ge=0)] = 0
    """On how many of `locations` an AIP must be stored and verified; 0: on all of them."""

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if bool(self.url) == bool(self.locations):
            raise ValueError("a location has either a url or locations")
        if self.min_copies > len(self.locations):
            raise ValueError(f"{self.min_copies} copies cannot be on {len(self.locations)} locations")
        return self
