"""The variables that a command's script may name, and the options in which scripts are told them.

The names are those of Archivematica's documentation and of what its registry is written against.
"""

from __future__ import annotations

import re
from pathlib import Path

from ingestd.oais import File, Package

VARIABLES = {
    "SIPUUID": "identifier of the package",
    "SIPName": "name of the package",
    "sipName": "name of the package",
    "SIPDirectory": "folder of the package, with a slash at the end",
    "SIPDirectoryBasename": "name of the package's folder",
    "SIPLogsDirectory": "folder of the package's logs, with a slash at the end",
    "SIPObjectsDirectory": "folder of the package's objects, with a slash at the end",
    "currentPath": "folder of the package, with a slash at the end",
    "fileUUID": "identifier of the file",
    "originalLocation": "path of the file as it was received",
    "currentLocation": "path of the file as it is now",
    "relativeLocation": "path of the file as it is now",
    "fileFullName": "absolute path of the file",
    "inputFile": "absolute path of the file",
    "fileDirectory": "absolute path of the file's folder, with a slash at the end",
    "fileName": "name of the file without its extension",
    "fileExtension": "extension of the file",
    "fileExtensionWithDot": "extension of the file with the dot before it",
    "fileGrpUse": "METS file group of the file",
    "outputFileUUID": "identifier of the file that is to be written",
    "outputDirectory": "folder to write to, with a slash at the end",
    "outputFileName": "absolute path of the file that is to be written, without its extension",
    "outputFilePath": "absolute path of the file that is to be written, without its extension",
    "outputLocation": "absolute path of what was written; for verification and event detail",
    "prefix": "what the name of the file that is to be written begins with",
    "postfix": "what the name of the file that is to be written ends with, before its extension",
    "tmpDirectory": "folder for passing files of this run",
    "processingDirectory": "folder in which packages are worked on",
    "rejectedDirectory": "folder of rejected packages",
    "policiesDirectory": "folder of policies for policy checks",
    "threads": "how many threads the tool may use",
    "memory": "how much memory the tool may use, in MiB",
    "toolName": "name of the command's tool; for event detail",
    "toolVersion": "version of the command's tool; for event detail",
    "language": "languages of texts, as Tesseract names them",
}
"""Every variable and what it holds."""

PLACEHOLDER = re.compile(r"%([A-Za-z]{4,})%")
"""A variable in a script. Four letters at least: `date +%Y%m%d` holds none."""


def unknown_variables(text: str) -> list[str]:
    """Name the placeholders of a script that no variable fills."""
    return sorted({name for name in PLACEHOLDER.findall(text) if name not in VARIABLES})


def options(name: str) -> tuple[str, ...]:
    """Give the options in which pythonScript and as_is scripts are told a variable.

    The first is the documented spelling; the second, where it differs, is what Archivematica really passes (a name that
    begins with capitals gets three hyphens), which the scripts of existing registries are written for.
    """
    documented = re.sub(r"(?<=[a-z])([A-Z])", r"-\1", re.sub(r"^SIP(?=[A-Z][a-z])", "sip-", name)).lower()
    passed = re.sub(r"[A-Z]+", lambda match: f"-{match[0].lower()}", name)
    return tuple(dict.fromkeys((f"--{documented}", f"--{passed}")))


def values_for(package: Package, root: Path, file: File) -> dict[str, str]:
    """Give the variables of a command that only reads a file of a package. `root` is what recorded paths start from."""
    root = root.absolute()
    path = root / file.path
    return {
        "SIPUUID": str(package.id),
        "SIPName": package.name,
        "sipName": package.name,
        "SIPDirectory": f"{root}/",
        "SIPDirectoryBasename": root.name,
        "SIPLogsDirectory": f"{root}/logs/",
        "SIPObjectsDirectory": f"{root}/objects/",
        "currentPath": f"{root}/",
        "processingDirectory": f"{root.parent}/",
        "fileUUID": str(file.id),
        "originalLocation": file.original,
        "currentLocation": file.path,
        "relativeLocation": file.path,
        "inputFile": str(path),
        "fileFullName": str(path),
        "fileDirectory": f"{path.parent}/",
        "fileName": path.stem,
        "fileExtension": path.suffix[1:],
        "fileExtensionWithDot": path.suffix,
        "fileGrpUse": str(file.use),
    }
