"""AIPs as their readers open them: unpacked by other programs, the bag by bagit, the METS by metsrw."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import bagit
import metsrw

_UNPACK = {
    ".7z": ["7z", "x", "-y", "-bd"],
    ".tar": ["tar", "-xf"],
    ".tar.gz": ["tar", "-xzf"],
    ".tar.bz2": ["tar", "-xjf"],
    ".tar.zst": ["tar", "--zstd", "-xf"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Aip:
    """An AIP that is a valid bag, whose METS lists exactly the files below `objects/`."""

    folder: Path
    mets: Any
    use: Mapping[str, str]
    """What each file of the fileSec is for, by its path in the bag's payload."""
    original_names: tuple[str, ...]
    """PREMIS originalName of every file, sorted."""

    def of(self, use: str) -> list[str]:
        return sorted(path for path, found in self.use.items() if found == use)


def stored_path(result: Mapping[str, Any]) -> Path:
    """Where a result says that the AIP is."""
    (stored,) = result["aip"]["stored"]
    parts = urlsplit(stored["url"])
    assert parts.scheme == "file"
    return Path(unquote(parts.path))


def stored_below(folder: Path) -> list[Path]:
    """AIPs, packed or not, and whatever else there is that the layout does not put beside them."""
    if not folder.exists():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (len(path.name) == 4 or path.name == "dip"):
            found += stored_below(path)
        elif not _beside(path):
            found.append(path)
    return found


def _beside(path: Path) -> bool:
    """The workers' own folder, and the digest and the pointer file of an AIP."""
    digest = path.suffix == ".sha256" and path.with_suffix("").exists()
    return digest or path.name == ".ingestd" or path.match("pointer.*.xml")


def open_aip(path: Path, into: Path) -> Aip:
    """Unpack an AIP, and prove it."""
    folder = _unpacked(path, into)
    bagit.Bag(str(folder)).validate(processes=1)
    (mets_path,) = (folder / "data").glob("METS.*.xml")
    mets = metsrw.METSDocument.fromfile(str(mets_path))
    files = {entry.path: entry for entry in mets.all_files() if entry.type == "Item"}
    data = folder / "data"
    on_disk = {str(item.relative_to(data)) for item in (data / "objects").rglob("*") if not item.is_dir()}

    assert on_disk == set(files)

    names = [it.findtext("original_name") for entry in files.values() for it in entry.get_premis_objects()]
    return Aip(
        folder=folder,
        mets=mets,
        use={path: entry.use for path, entry in files.items()},
        original_names=tuple(sorted(str(name) for name in names)),
    )


def _unpacked(path: Path, into: Path) -> Path:
    if path.is_dir():
        return path
    into.mkdir(parents=True)
    (suffix,) = [suffix for suffix in _UNPACK if path.name.endswith(suffix)]
    run = subprocess.run([*_UNPACK[suffix], path], cwd=into, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr

    (folder,) = into.iterdir()
    return folder
