"""Pre-flight of the structure: places in the transfer, a bag's completeness, checksum files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ingestd.bag import INFO_FILES, Declaration, Manifest, manifest_of, read_declaration, read_fetch, read_info
from ingestd.errors import Code, Violation
from ingestd.manifests import HASHES, Entry, Wrong, leads_out, read, spellings
from ingestd.oais import escape_name
from ingestd.preflight.transfer import PAYLOAD, TOP_LEVEL, Transfer
from ingestd.premis import DigestAlgorithm

READ = ("bagit.txt", "fetch.txt", *INFO_FILES, "manifest-*.txt", "tagmanifest-*.txt", "checksum.*")
"""Patterns of the names of files that are read."""
_FOLDERS_OF_OBJECTS = ("objects/metadata", "objects/submissionDocumentation", "submissionDocumentation")
_OXUM = "payload-oxum"


def check_places(transfer: Transfer) -> None:
    """Nothing has two places in `objects`, and no folder's name is a file's; something is left to preserve."""
    overview, base = transfer.overview, transfer.base
    wrong = Wrong()
    for path in overview.entries:
        name = path.removeprefix(base)
        if "/" in name or not path.startswith(base) or transfer.removed(path):
            continue
        if name in TOP_LEVEL:
            if not overview.is_folder(path):
                wrong.add(Violation(path=path, rule="folder", expected="a folder", actual="a file"))
        elif f"{base}objects/{name}" in overview.entries:
            expected = f"nothing else at {escape_name(f'{base}objects/{name}')}"
            wrong.add(Violation(path=escape_name(path), rule="unique", expected=expected))
    for name in _FOLDERS_OF_OBJECTS:
        if overview.is_file(base + name):
            wrong.add(Violation(path=base + name, rule="folder", expected="a folder", actual="a file"))
    transfer.refuse(Code.CONTENT_NAME_COLLISION, "two things would have the same place, or a folder's name", wrong)
    if not overview.said and not any(transfer.objects()):
        nothing = Violation(path="", rule="objects", expected="a file that is not hidden and not of the system's")
        transfer.refuse(Code.CONTENT_EMPTY, "the source holds no file to preserve", [nothing])


# --- bags ------------------------------------------------------------------------------------------------------------


def check_bag(transfer: Transfer, *, fetching: bool) -> None:
    """A bag is complete (RFC 8493, 3): declared, its manifests well formed, what they name is there, and all named."""
    overview, wrong = transfer.overview, Wrong()
    declared = _declared(transfer, wrong)
    if not overview.is_folder("data") and not _folder_of_files(transfer, PAYLOAD):
        wrong.add(Violation(path="data", rule="payload", expected="a folder", actual="nothing of this name"))
    manifests = [found for path in overview.entries if "/" not in path and (found := manifest_of(path))]
    payload = [one for one in manifests if one.word and not one.of_tags]
    if not payload:
        names = ", ".join(one.name for one in manifests if not one.of_tags) or "none"
        expected = "manifest-ALGORITHM.txt with md5, sha1, sha256, sha512 or another that is known here"
        wrong.add(Violation(path="", rule="manifest", expected=expected, actual=names))
    later = transfer.later = _to_fetch(transfer, declared, wrong, fetching=fetching)
    named = [
        _named(transfer, one, _of_tags if one.of_tags else _of_payload, declared.encoding, wrong, later)
        for one in sorted(manifests, key=lambda one: one.of_tags)
        if one.word
    ]
    if not overview.said:
        each = declared.version == "1.0"
        here = [path for path, size in overview.entries.items() if size is not None and path.startswith(PAYLOAD)]
        listings = [(one.name, paths) for one, paths in zip(payload, named, strict=False) if paths is not None]
        _must_be_named(transfer, here, listings, wrong, each=each)
        _oxum(transfer, declared, here, wrong, later)
    transfer.refuse(Code.CONTENT_BAG_INVALID, "the bag is not valid", wrong)


def _folder_of_files(transfer: Transfer, below: str) -> bool:
    return any(path.startswith(below) for path in transfer.overview.entries)


def _declared(transfer: Transfer, wrong: Wrong) -> Declaration:
    with transfer.opened("bagit.txt") as file:
        declared = read_declaration(file) if file is not None else Declaration()
    for fault in declared.faults:
        wrong.add(fault)
    return declared


def _to_fetch(transfer: Transfer, declared: Declaration, wrong: Wrong, *, fetching: bool) -> frozenset[str]:
    """What the bag lacks and says where it is; with `fetching` (`sources.fetch_txt`), it will be there."""
    later: set[str] = set()
    with transfer.opened("fetch.txt") as file:
        for line in read_fetch(file, declared.encoding) if file is not None else ():
            transfer.watch()
            if isinstance(line, Violation):
                wrong.add(line)
            elif not (places := _of_payload(line.path)):
                place, expected = f"fetch.txt:{line.line}", "a path below data/"
                rule, named = Code.CONTENT_PATH_TRAVERSAL, escape_name(line.path)
                wrong.add(Violation(path=place, rule=rule, expected=expected, actual=named))
            elif fetching:
                later.update(places)
            elif not any(transfer.overview.is_file(place) for place in places):
                expected = "the file itself, or sources.fetch_txt switched on"
                named = escape_name(line.path)
                wrong.add(Violation(path=named, rule="fetch", expected=expected, actual=line.url[:500]))
    return frozenset(later)


def _oxum(transfer: Transfer, declared: Declaration, here: Sequence[str], wrong: Wrong, later: frozenset[str]) -> None:
    counted = f"{sum(transfer.overview.entries[path] or 0 for path in here)}.{len(here)}"
    name = next((name for name in INFO_FILES if transfer.overview.is_file(name)), INFO_FILES[0])
    with transfer.opened(name) as file:
        for item in read_info(file, declared.encoding, name=name) if file is not None else ():
            if isinstance(item, Violation):
                wrong.add(item)
            elif item[0].lower() == _OXUM and item[1] != counted and not later:
                wrong.add(Violation(path=name, rule="Payload-Oxum", expected=item[1][:200], actual=counted))


def _of_payload(path: str) -> list[str]:
    plain = path.removeprefix("./")
    return [each for each in spellings(plain) if each.startswith(PAYLOAD) and not leads_out(each)]


def _of_tags(path: str) -> list[str]:
    return [each for each in spellings(path) if not each.startswith(PAYLOAD) and not leads_out(each)]


# --- checksum files --------------------------------------------------------------------------------------------------


def check_checksums(transfer: Transfer) -> None:
    """`metadata/checksum.*` are well formed, name what is there, and name every object."""
    wrong, base = Wrong(), transfer.base
    for algorithm in DigestAlgorithm:
        name = f"metadata/checksum.{algorithm}"
        if not transfer.overview.is_file(base + name):
            continue
        manifest = Manifest(name=base + name, word=algorithm.value, of_tags=False)
        named = _named(transfer, manifest, lambda path: _among_objects(transfer, path), "utf-8", wrong, frozenset())
        if named is not None and not transfer.overview.said:
            _must_be_named(transfer, transfer.objects(), [(name, named)], wrong, each=True)
    transfer.refuse(Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH, "checksum files do not match the files", wrong)


def _among_objects(transfer: Transfer, path: str) -> list[str]:
    plain = path.removeprefix("./")
    inside = plain.removeprefix("../") if plain.startswith("../objects/") else plain
    if leads_out(inside):
        return []
    meant = [inside] if inside != plain else [f"objects/{plain}", plain]
    return [place for each in meant for place in transfer.places(each)]


# --- what both share -------------------------------------------------------------------------------------------------


def _named(
    transfer: Transfer,
    manifest: Manifest,
    places: Callable[[str], list[str]],
    encoding: str,
    wrong: Wrong,
    later: frozenset[str],
) -> set[str] | None:
    """Read a manifest; give the paths that it names and that are there. None where it could not be read."""
    named: set[str] = set()
    with transfer.opened(manifest.name) as file:
        if file is None:
            return None
        for line in read(file, manifest.word, name=manifest.name, encoding=encoding):
            transfer.watch()
            if isinstance(line, Violation):
                wrong.add(line)
            elif (problem := _misses(transfer, manifest, line, places(line.path), later, named)) is not None:
                wrong.add(problem)
    return named


def _misses(
    transfer: Transfer,
    manifest: Manifest,
    line: Entry,
    places: Sequence[str],
    later: frozenset[str],
    named: set[str],
) -> Violation | None:
    place, said = f"{manifest.name}:{line.line}", escape_name(line.path)
    if not places:
        expected = "a path that stays within, and a manifest's payload below data/"
        return Violation(path=place, rule=Code.CONTENT_PATH_TRAVERSAL.value, expected=expected, actual=said)
    found = next((each for each in places if transfer.overview.is_file(each)), None)
    if found is not None:
        named.add(found)
        value = None if transfer.removed(found) else transfer.digest(found, HASHES[manifest.word])
        if value is not None and value != line.digest:
            expected = f"{line.digest} ({place})"
            return Violation(path=said, rule=manifest.word, expected=expected, actual=value)
    elif not transfer.overview.said and later.isdisjoint(places):
        return Violation(path=said, rule="present", expected=f"a file, since {place} names it", actual="no such file")
    return None


def _must_be_named(
    transfer: Transfer,
    files: Iterator[str] | Sequence[str],
    listings: Sequence[tuple[str, set[str]]],
    wrong: Wrong,
    *,
    each: bool,
) -> None:
    """Every file is named by all listings (`each`), or by one."""
    for path in files if listings else ():
        transfer.watch()
        missing = [name for name, named in listings if path not in named]
        if missing and (each or len(missing) == len(listings)):
            expected = f"a line in {', '.join(missing)}"
            wrong.add(Violation(path=escape_name(path), rule="listed", expected=expected, actual="none"))


def begins_like_a_bag(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"BagIt-Version" in opened.read(64)


def is_bag(transfer: Transfer) -> bool:
    """Whether the source means to be a bag, as the step that verifies bags sees it."""
    if not transfer.overview.is_file("bagit.txt"):
        return False
    with ExitStack() as stack:
        file = stack.enter_context(transfer.opened("bagit.txt"))
        return _folder_of_files(transfer, PAYLOAD) or (file is not None and begins_like_a_bag(file))
