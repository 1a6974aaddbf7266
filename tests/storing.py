"""What tests of archival storage share: small packages, and how they are stored."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from ingestd.premis import DigestAlgorithm
from ingestd.storage import Archive, Deposit, Stored

PACKAGE = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
SHA256 = DigestAlgorithm.SHA256


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(tmp_path: Path, content: bytes = b"an AIP", name: str = "a.7z") -> Path:
    path = tmp_path / "work" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


async def store(
    archive: Archive, source: Path, content: bytes, package: uuid.UUID = PACKAGE, **companions: bytes
) -> Stored:
    """Store a package, with small files `NAME.xml` beside it."""
    return await archive.store(
        source,
        Deposit(
            package=package,
            name="a.7z",
            size_bytes=len(content),
            algorithm=SHA256,
            digest=digest(content),
            companions={f"{name}.xml": written for name, written in companions.items()},
        ),
    )


def make_bag(folder: Path, payload: dict[str, bytes]) -> str:
    """Write a bag by hand; gives its tag manifest's digest."""
    for name, content in payload.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    encoded = {name: name.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D") for name in payload}
    manifest = "".join(f"{digest(content)}  data/{encoded[name]}\n" for name, content in payload.items()).encode()
    (folder / "manifest-sha256.txt").write_bytes(manifest)
    (folder / "bagit.txt").write_bytes(b"BagIt-Version: 1.0\n")
    tags = (
        f"{digest(b'BagIt-Version: 1.0' + bytes([10]))}  bagit.txt\n{digest(manifest)}  manifest-sha256.txt\n".encode()
    )
    (folder / "tagmanifest-sha256.txt").write_bytes(tags)
    return digest(tags)


async def store_bag(archive: Archive, folder: Path, tag_digest: str) -> Stored:
    return await archive.store(
        folder, Deposit(package=PACKAGE, name="a", size_bytes=1, algorithm=SHA256, digest=tag_digest)
    )
