"""Settings on what is taken on: how far it is looked at, when there is room for it, how long it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


LocalPath = Annotated[Path, AfterValidator(_absolute)]
"""A path, made absolute where the service starts: programs run in folders of their own."""


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class PreflightSettings(Model):
    """How much of a source is looked at before its request is accepted; what was not is said in the result."""

    max_seconds: Annotated[float, Field(gt=0)] = 30
    """Longest look."""
    max_entries: Annotated[int, Field(ge=1)] = 100_000
    """Most files and folders that are looked at."""
    max_metadata_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """Largest metadata file or manifest that is read."""
    max_checksum_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Largest source that is held against its checksum beforehand, and most bytes of a folder's files that are held
    against its manifests; any others are when they are received."""


class AdmissionSettings(Model):
    """When there is room for a package on the working disk, and how what it may need is reckoned from its size."""

    reserve_bytes: Annotated[int, Field(ge=0)] = 2**30
    """What is kept free on the disk; with less, no request is taken."""
    reserve_files: Annotated[int, Field(ge=0)] = 10_000
    """How many more files the disk must be able to hold."""
    reserve_memory_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """What is kept free of memory: of the machine, or of the control group that the service runs in."""
    factor: Annotated[float, Field(gt=0)] = 1.1
    """What all that is reckoned is multiplied by; 0.01 takes nearly everything on trust."""
    expansion: Annotated[float, Field(ge=0)] = 3
    """How many times its size an archive unpacks to, where only unpacking tells."""
    derivatives: Annotated[float, Field(ge=0)] = 1
    """How large derivatives for preservation, and those for access, are, as a part of the originals."""
    extracted: Annotated[float, Field(ge=0)] = 0.5
    """How much comes out of archives among the objects, as a part of the originals."""
    look_seconds: Annotated[float, Field(gt=0)] = 5
    """How often it is looked whether there is room."""
    tell_seconds: Annotated[float, Field(gt=0)] = 300
    """How often `request.waiting` says that a package waits for room; of one that no worker has begun with, when its
    message comes back from being parked (`amqp.park_seconds`).
    """
    elsewhere_seconds: Annotated[float, Field(ge=0)] = 3600
    """How long a request for which this worker's disk is too small even when empty is left to workers with larger
    disks, before it is rejected; 0 where all are alike.
    """


class JanitorSettings(Model):
    """How long working folders are kept that nobody is at work on."""

    interval_seconds: Annotated[float, Field(gt=0)] = 3600
    """How often it is looked for what is to be removed; it is at the start, too."""
    keep_failed_seconds: Annotated[float, Field(ge=0)] = 30 * 86400
    """How long the folder of a package that failed or was cancelled is kept: `ingestd packages` lists them."""
    keep_unknown_seconds: Annotated[float, Field(ge=0)] = 86400
    """How long a folder is kept that is of no request of this service, from when it was last touched."""
