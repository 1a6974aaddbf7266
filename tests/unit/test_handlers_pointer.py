"""Packed AIPs with their pointer files, and encrypted ones: real packing, real GnuPG with keys made for the occasion."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import metsrw
import pytest

from ingestd import aip
from ingestd.config import Settings, ToolSettings
from ingestd.errors import Code, RequestError, SystemFault
from ingestd.handlers.aip import compress_aip, generate_mets, prepare_aip, store_aip, verify_aip
from ingestd.handlers.pointer import encrypt_aip, write_pointer_file
from ingestd.job import Services
from ingestd.keeping import EncryptionSettings, LocationSettings
from ingestd.oais import Facts
from ingestd.premis import Event, EventType, Program
from ingestd.results import aip_data
from ingestd.storage import Locations
from ingestd.tools import gpg
from ingestd.tools.pool import Pool
from tests.mets_samples import AGENTS
from tests.steps import AT, Bench, a_package, file_id, inside

pytestmark = pytest.mark.tool


@dataclass(frozen=True, kw_only=True)
class Keys:
    home: Path
    public: Path
    fingerprint: str
    signs_only: str

    def decrypt(self, source: Path, into: Path) -> None:
        self.gpg("--decrypt", "--output", str(into), str(source))

    def gpg(self, *arguments: str) -> str:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run([*argv, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    made = Keys(home=home, public=home / "public.asc", fingerprint="", signs_only="")
    made.gpg("--quick-generate-key", "archive@example.org", "future-default", "default", "never")
    made.gpg("--quick-generate-key", "signer@example.org", "ed25519", "sign", "never")
    listed = made.gpg("--list-keys", "--with-colons").splitlines()
    first = [listed[number + 1].split(":")[9] for number, line in enumerate(listed) if line.startswith("pub:")]
    made.public.write_text(made.gpg("--armor", "--export"))
    yield Keys(home=home, public=made.public, fingerprint=first[0], signs_only=first[1])
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


async def open_bench(tmp_path: Path, pool: Pool, settings: Mapping[str, Any], processing: Mapping[str, Any]) -> Bench:
    places = {name: (tmp_path / name).as_uri() for name in ("here", "there")}
    locations: dict[str, str | LocationSettings] = {**places, "both": LocationSettings(locations=("here", "there"))}
    made = Settings(data_dir=tmp_path / "data", locations=locations, default_location="here", **settings)
    services = SimpleNamespace(
        settings=made, pool=pool, tools=SimpleNamespace(), locations=Locations.open(locations, "here", {})
    )
    package = a_package(name="letters", processing=processing)
    options = {"normative-structmap": "yes", "level": "1"}
    bench = await Bench.open(tmp_path, package=package, services=cast("Services", services), options=options)
    await bench.journal.add_agents(AGENTS)
    await bench.receive({"objects/a": b"1", "objects/d/b": b"22"}, folders=["logs", "objects/metadata"])
    happened = [
        Event(object=file_id(path), type=EventType.INGESTION, at=AT, detail=Program("x", "1").words())
        for path in ("objects/a", "objects/d/b")
    ]
    await bench.journal.record(Facts(events=happened))
    return bench


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Pool(ToolSettings(processes=2), scratch=tmp_path / "scratch") as pool:
        yield pool


async def stored(bench: Bench, *, encrypt: bool = False, target: str = "here") -> list[Path]:
    """Make and store the AIP; give where its copies are."""
    steps = [generate_mets, prepare_aip, compress_aip, verify_aip, write_pointer_file, store_aip]
    if encrypt:
        steps.insert(4, encrypt_aip)  # type: ignore[arg-type]
    for step in steps:
        await bench.run(step, target=target)
    data = await aip_data(bench.journal, bench.package, bench.services.settings.digest_algorithm)
    assert data is not None
    return [Path(unquote(urlsplit(copy.url).path)) for copy in data.stored]


def pointer_of(path: Path, bench: Bench) -> Path:
    return path.with_name(f"pointer.{bench.package.id}.xml")


@pytest.mark.parametrize("algorithm", ["s7_copy", "s7_bzip2", "tar", "tar_gzip", "tar_bzip2", "tar_zstd"])
async def test_every_packed_aip_has_a_pointer_file_that_holds(tmp_path: Path, pool: Pool, algorithm: str) -> None:
    bench = await open_bench(tmp_path, pool, {}, {"aip_compression_algorithm": algorithm})

    (path,) = await stored(bench)
    found = await aip.verify(path)

    assert ([], pointer_of(path, bench).name) == (list(found.findings), found.checked.pointer)
    await bench.journal.close()


async def test_a_wrong_pointer_file_is_found(tmp_path: Path, pool: Pool) -> None:
    bench = await open_bench(tmp_path, pool, {}, {})
    (path,) = await stored(bench)
    pointer = pointer_of(path, bench)
    right = (await bench.journal.facts())["aip_digest"]
    pointer.write_text(pointer.read_text().replace(right, "0" * 64).replace('"copy"/', '"pbzip2"/'))
    text = pointer.read_text().replace('TRANSFORMALGORITHM="copy"', 'TRANSFORMALGORITHM="pbzip2"')
    pointer.write_text(text)

    found = await aip.verify(path)

    assert {"mets.transformFile", "premis.1.5.2"} == {finding.rule for finding in found.findings}
    await bench.journal.close()


async def test_the_result_says_where_the_pointer_file_is_and_its_checksum(tmp_path: Path, pool: Pool) -> None:
    bench = await open_bench(tmp_path, pool, {}, {})
    (path,) = await stored(bench)

    data = await aip_data(bench.journal, bench.package, bench.services.settings.digest_algorithm)

    assert data is not None
    said = data.stored[0].pointer
    assert said is not None
    assert pointer_of(path, bench) == Path(unquote(urlsplit(said.url).path))
    assert hashlib.sha256(pointer_of(path, bench).read_bytes()).hexdigest() == said.checksum.value
    assert "each of 7 files read from the package, by sha256" == data.verified_by
    await bench.journal.close()


async def test_a_second_copy_says_in_its_pointer_file_of_which_it_is_one(tmp_path: Path, pool: Pool) -> None:
    bench = await open_bench(tmp_path, pool, {}, {})

    here, there = await stored(bench, target="both")

    def replications(path: Path) -> list[str]:
        (entry,) = metsrw.METSDocument.fromfile(str(pointer_of(path, bench))).all_files()
        events = [event for event in entry.get_premis_events() if event.type == EventType.REPLICATION]
        return [event.event_detail_information__event_detail for event in events]

    assert ([], ['source="here"; target="there"']) == (replications(here), replications(there))
    assert [] == list((await aip.verify(there)).findings)
    await bench.journal.close()


POINTER_CORRUPTIONS = {
    "its digest of the package": (r"(<premis:messageDigest>).{8}", r"\g<1>00000000", "premis.1.5.2"),
    "its size of the package": (r"<premis:size>\d+", "<premis:size>7", "premis.1.5.3"),
    "its identifier": (r"(<premis:objectIdentifierValue>).{8}", r"\g<1>00000000", "premis.1.1"),
    "its name of the package": (r'(xlink:href="[^"]*)\.7z"', r'\g<1>.zip"', "mets.FLocat"),
    "how it is unpacked": (r'TRANSFORMALGORITHM="[^"]+"', 'TRANSFORMALGORITHM="gzip"', "mets.transformFile"),
    "an event without a time": (r"<premis:eventDateTime>.*?</premis:eventDateTime>", "", "mets.xsd"),
    "its end": (r"</mets:fileSec>.*", "", "mets.xml"),
    "a document type": ("<mets:mets ", "<!DOCTYPE mets><mets:mets ", "mets.xml"),
}


async def test_what_is_wrong_with_a_pointer_file_is_found_and_named(tmp_path: Path, pool: Pool) -> None:
    bench = await open_bench(tmp_path, pool, {}, {})
    (path,) = await stored(bench)
    pointer = pointer_of(path, bench)
    text = pointer.read_text()

    for what, (pattern, replacement, rule) in POINTER_CORRUPTIONS.items():
        corrupted, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
        assert count == 1, what
        pointer.write_text(corrupted)
        found = await aip.verify(path)
        assert rule in {finding.rule for finding in found.findings}, what
        assert all(one.path.startswith((pointer.name, path.name)) for one in found.findings), what
    pointer.write_text(text)
    assert [] == list((await aip.verify(path)).findings)
    await bench.journal.close()


async def test_an_aip_that_is_a_folder_has_no_pointer_file(tmp_path: Path, pool: Pool) -> None:
    bench = await open_bench(tmp_path, pool, {}, {"aip_compression_algorithm": "uncompressed"})

    (path,) = await stored(bench)

    assert not pointer_of(path, bench).exists()
    await bench.journal.close()


# --- encryption


async def test_an_encrypted_aip_is_the_same_again_when_stock_gpg_decrypts_it(
    tmp_path: Path, pool: Pool, keys: Keys
) -> None:
    settings = {"encryption": {"recipients": [keys.fingerprint], "keys": keys.public}}
    bench = await open_bench(tmp_path, pool, settings, {"encrypt_aip": True})

    (path,) = await stored(bench, encrypt=True)

    assert path.name.endswith(".7z.gpg")
    plain = path.with_name(path.name.removesuffix(".gpg"))
    keys.decrypt(path, plain)
    verified = await aip.verify(plain)
    assert ([], pointer_of(path, bench).name) == (list(verified.findings), verified.checked.pointer)
    data = await aip_data(bench.journal, bench.package, bench.services.settings.digest_algorithm)
    assert data is not None
    assert data.encryption is not None
    assert [keys.fingerprint] == data.encryption.keys
    assert data.verified_by.endswith("before it was encrypted")
    (entry,) = metsrw.METSDocument.fromfile(str(pointer_of(path, bench))).all_files()
    (found,) = entry.get_premis_objects()
    assert ("2", str(path.stat().st_size)) == (found.composition_level, found.size)
    assert [keys.fingerprint] == [one["KEY"] for one in entry.transform_files if one["TYPE"] == "decryption"]
    await bench.journal.close()


async def test_a_decrypted_aip_is_held_against_what_was_encrypted(tmp_path: Path, pool: Pool, keys: Keys) -> None:
    settings = {"encryption": {"recipients": [keys.fingerprint], "keys": keys.public}}
    bench = await open_bench(tmp_path, pool, settings, {"encrypt_aip": True, "aip_compression_algorithm": "tar"})
    (path,) = await stored(bench, encrypt=True)
    plain = path.with_name(path.name.removesuffix(".gpg"))
    keys.decrypt(path, plain)
    with plain.open("ab") as end:
        end.write(bytes(10240))  # tar reads no further than its end

    found = await aip.verify(plain)

    assert {"premis.1.5.2", "premis.1.5.3"} == {finding.rule for finding in found.findings}
    await bench.journal.close()


async def test_encryption_that_was_cut_off_ends_the_same_and_leaves_nothing_readable(
    tmp_path: Path, pool: Pool, keys: Keys
) -> None:
    settings = {"encryption": {"recipients": [keys.fingerprint], "keys": keys.public}}
    bench = await open_bench(tmp_path, pool, settings, {"encrypt_aip": True})
    for step in (generate_mets, prepare_aip, compress_aip, verify_aip):
        await bench.run(step)
    await bench.run(encrypt_aip, stop_after=0)  # encrypted, and not recorded
    await bench.run(encrypt_aip)
    digest = (await bench.journal.facts())["aip_digest"]
    await bench.run(encrypt_aip)

    assert [f"{bench.package.label}.7z.gpg"] == inside(bench.folder / "aip")
    assert digest == (await bench.journal.facts())["aip_digest"]
    await bench.journal.close()


async def test_no_agent_and_no_key_ring_is_left_behind(tmp_path: Path, pool: Pool, keys: Keys) -> None:
    (tmp_path / "a").write_bytes(b"one")
    settings = EncryptionSettings(recipients=(keys.fingerprint,), keys=keys.public)

    await gpg.encrypt(pool, settings, tmp_path / "a", tmp_path / "a.gpg")

    agents = subprocess.run(["pgrep", "-f", f"gpg-agent.*{tmp_path}"], capture_output=True, check=False)
    assert b"" == agents.stdout
    assert [] == list(pool.home().glob("gpg-*"))


@pytest.mark.parametrize("wrong", ["nothing", "no file", "no keys", "another key", "signs only"])
async def test_settings_with_which_nothing_can_be_encrypted_are_refused_and_named(
    tmp_path: Path, pool: Pool, keys: Keys, wrong: str
) -> None:
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    settings, named = {
        "nothing": (EncryptionSettings(), ["encryption.recipients", "encryption.keys"]),
        "no file": (
            EncryptionSettings(recipients=(keys.fingerprint,), keys=tmp_path / "none"),
            ["encryption.keys"],
        ),
        "no keys": (
            EncryptionSettings(recipients=(keys.fingerprint,), keys=tmp_path / "rubbish"),
            ["encryption.keys"],
        ),
        "another key": (EncryptionSettings(recipients=("0" * 40,), keys=keys.public), ["encryption.recipients"]),
        "signs only": (
            EncryptionSettings(recipients=(keys.fingerprint, keys.signs_only), keys=keys.public),
            ["encryption.recipients"],
        ),
    }[wrong]

    with pytest.raises(SystemFault) as caught:
        await gpg.prove_keys(pool, settings)

    assert (Code.SYSTEM_CONFIGURATION, named) == (caught.value.code, [one.path for one in caught.value.violations])


async def test_what_a_transfer_wants_left_a_folder_cannot_be_encrypted(tmp_path: Path, pool: Pool) -> None:
    processing = {"encrypt_aip": True, "aip_compression_algorithm": "uncompressed"}
    bench = await open_bench(tmp_path, pool, {}, processing)

    with pytest.raises(RequestError, match="left a folder"):
        await bench.run(encrypt_aip)

    await bench.journal.close()


def test_a_short_key_id_is_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="40 or 64"):
        EncryptionSettings(recipients=("DEADBEEF",))
