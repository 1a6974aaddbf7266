"""Pre-flight of what the types of transfer need: DSpace's, Dataverse's and mail's records of what should be there.

Each is read by the reader that its step will use; digests are the steps' to prove. The other types need nothing of
their own: a disk image is a file as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from ingestd.errors import Code, Violation
from ingestd.manifests import Wrong, leads_out
from ingestd.metadata import dataverse, dspace, mail, simple_archive
from ingestd.metadata.xml import UnreadableError
from ingestd.oais import TransferType, escape_name
from ingestd.preflight.transfer import Transfer

READ = (dspace.NAME, simple_archive.NAME, simple_archive.CONTENTS, dataverse.PLACES[0].rpartition("/")[2])
"""Names of the files that are read."""
_UNPACKED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def check_type(transfer: Transfer, type_: TransferType, *, fatal: Mapping[str, bool]) -> None:
    """Note what the steps for a type of transfer would refuse; `fatal` are the steps that the workflow has."""
    if "read_dspace_exports" in fatal and type_ in {TransferType.AUTO, TransferType.DSPACE}:
        _dspace(transfer, promised=type_ is TransferType.DSPACE)
    if "read_dataverse_dataset" in fatal and type_ in {TransferType.AUTO, TransferType.DATAVERSE}:
        _dataverse(transfer, promised=type_ is TransferType.DATAVERSE)
    if "extract_mail_attachments" in fatal and type_ is TransferType.MAILDIR and not transfer.overview.said:
        folders = (path for path, size in transfer.overview.entries.items() if size is None)
        if not any(_is_maildir(transfer, path) for path in ("", *folders)):
            transfer.errors.append(mail.no_maildir())


# --- DSpace ----------------------------------------------------------------------------------------------------------


def _dspace(transfer: Transfer, *, promised: bool) -> None:
    wrong, found = Wrong(), 0
    for path in transfer.objects():
        folder, slash, name = path.rpartition("/")
        contents = f"{folder}{slash}{simple_archive.CONTENTS}"
        if name == dspace.NAME:
            found += 1
            with transfer.opened(path) as file:
                if file is not None and (promised or dspace.is_export(file)):
                    _bitstreams(transfer, path, partial(_of_mets, file), wrong)
        elif name == simple_archive.NAME and transfer.overview.is_file(contents):
            found += 1
            with transfer.opened(path) as file, transfer.opened(contents) as list_:
                if file is not None and list_ is not None and simple_archive.is_description(file):
                    _bitstreams(transfer, contents, partial(simple_archive.listed, list_), wrong)
    detail = "what DSpace exported is not what it says"
    transfer.refuse(Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH, detail, wrong)
    if promised and not found and not transfer.overview.said:
        if any(path.lower().endswith(_UNPACKED) for path in transfer.objects()):
            transfer.limits.append("the items in archives are seen when these are unpacked")
        else:
            transfer.errors.append(dspace.no_export())


def _bitstreams(transfer: Transfer, path: str, read: Callable[[], Iterable[dspace.Bitstream]], wrong: Wrong) -> None:
    """Every bitstream is there that the document at `path` names."""
    try:
        bitstreams = list(read())
    except UnreadableError as error:
        wrong.add(
            Violation(
                path=escape_name(path),
                rule=path.rpartition("/")[2],
                expected="a list of files that can be read",
                actual=str(error),
            )
        )
        return
    folder = path.rpartition("/")[0]
    for one in bitstreams:
        transfer.watch()
        if "://" in one.href:
            continue
        names = [f"{folder}/{name}".lstrip("/") for name in dict.fromkeys([one.href, unquote(one.href)])]
        if leads_out(one.href) or not (transfer.overview.said or transfer.has_object(names)):
            expected = f"a file, since {escape_name(path)}:{one.line} names it"
            actual = "a path that leads out" if leads_out(one.href) else "no such file"
            wrong.add(Violation(path=escape_name(names[0][:500]), rule="present", expected=expected, actual=actual))


def _of_mets(file: Path) -> Iterable[dspace.Bitstream]:
    return dspace.read(file).bitstreams


# --- Dataverse -------------------------------------------------------------------------------------------------------


def _dataverse(transfer: Transfer, *, promised: bool) -> None:
    place = next((place for name in dataverse.PLACES for place in _files(transfer, name)), None)
    if place is None:
        if promised and not transfer.overview.said:
            transfer.errors.append(dataverse.no_dataset())
        return
    with transfer.opened(place) as file:
        if file is None or not (promised or dataverse.is_dataset(file)):
            return
        try:
            dataset = dataverse.read(file)
        except UnreadableError as error:
            expected = "a dataset as Dataverse's API gives it"
            fault = Violation(path=escape_name(place), rule="dataverse", expected=expected, actual=str(error))
            transfer.refuse(Code.CONTENT_METADATA_INVALID, f"{escape_name(place)} has 1 fault", [fault])
            return
    wrong = Wrong()
    for one in dataset.files:
        transfer.watch()
        if not _has(transfer, one):
            expected = f"a file, since {escape_name(place)}: file {one.number} names it"
            actual = "a path that leads out" if leads_out(one.path) else "no such file"
            wrong.add(Violation(path=escape_name(one.path)[:500], rule="present", expected=expected, actual=actual))
    detail = "the files are not those that dataset.json names"
    transfer.refuse(Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH, detail, wrong)


def _has(transfer: Transfer, one: dataverse.DatasetFile) -> bool:
    """Whether a file of a dataset is there, need not be, or may be in the archive of its table."""
    if one.restricted or transfer.overview.said:
        return True
    if leads_out(one.path):
        return False
    places = [*one.places, *(one.places_of_table + list(one.bundles) if one.is_table else ())]
    return transfer.has_object(places)


def _files(transfer: Transfer, name: str) -> Iterator[str]:
    return (place for place in transfer.places(name) if transfer.overview.is_file(place))


# --- mail ------------------------------------------------------------------------------------------------------------


def _is_maildir(transfer: Transfer, path: str) -> bool:
    below = f"{path}/" if path else ""
    here = not transfer.removed(path) if path else True
    return here and all(transfer.overview.is_folder(f"{below}{name}") for name in mail.FOLDERS)
