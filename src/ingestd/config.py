"""Settings: one documented model, filled from a TOML file and from `INGESTD_…` variables of the environment.

The environment wins over the file, the file over the defaults. A nested setting is named with two underscores
(`INGESTD_AMQP__URL`); lists and tables are written as JSON. This is the only module that reads the environment.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError

from ingestd.errors import Code, SystemFault, Violation, nearest
from ingestd.keeping import CredentialSettings, EncryptionSettings, LocationSettings
from ingestd.premis import DigestAlgorithm
from ingestd.sections import AdmissionSettings, JanitorSettings, LocalPath, Model, PreflightSettings

PREFIX = "INGESTD_"
_UNKNOWN = "unknown_setting"
CPUS = len(os.sched_getaffinity(0))


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")  # noqa: TID251  the one door
    return Path(base) / "ingestd"


class AmqpSettings(Model):
    """The message broker."""

    url: SecretStr = SecretStr("amqp://guest:guest@127.0.0.1:5672/")
    """Where RabbitMQ is: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS."""
    ca_file: LocalPath | None = None
    """Certificates that the broker's must be signed by (PEM, `amqps`); empty: those of the system."""
    certificate: LocalPath | None = None
    """Certificate that is shown to the broker (PEM, with those it is signed by), where it asks for one."""
    key: LocalPath | None = None
    """Private key of `certificate` (PEM, without a password); empty: it is in the same file."""
    requests: str = "ingestd.requests"
    """Exchange and queue of preservation requests."""
    inflight: str = "ingestd.inflight"
    """Queue in which requests in hand are parked."""
    control: str = "ingestd.control"
    """Exchange of commands to workers."""
    events: str = "ingestd.events"
    """Exchange of progress events."""
    results: str = "ingestd.results"
    """Exchange of results."""
    unrouted: str = "ingestd.unrouted"
    """Exchange and queue that keep results which nobody has bound."""
    dead_letter_exchange: str = "ingestd.dlx"
    """Exchange of messages that could not be taken."""
    dead: str = "ingestd.dead"
    """Queue of messages that could not be taken."""
    declare: bool = True
    """Declare the topology at start; switch off where the service may not declare, and run `ingestd topology` once."""
    delivery_limit: Annotated[int, Field(ge=1)] = 20
    """How often the broker delivers one message before it goes to the dead-letter queue."""
    park_seconds: Annotated[float, Field(gt=0)] = 300
    """How long a request in hand stays parked before it comes back (it is then parked anew)."""
    reconnect_min_seconds: Annotated[float, Field(gt=0)] = 0.5
    """First wait before connecting again; it doubles, with jitter, up to the longest."""
    reconnect_max_seconds: Annotated[float, Field(gt=0)] = 30
    """Longest wait before connecting again."""
    heartbeat_seconds: Annotated[int, Field(ge=0)] = 30
    """AMQP heartbeat."""


class Sandbox(StrEnum):
    """Whether programs are confined."""

    AUTO = "auto"
    OFF = "off"
    REQUIRED = "required"


class ToolSettings(Model):
    """Limits of the external programs."""

    processes: Annotated[int, Field(ge=1)] = CPUS
    """How many programs may run at once, over all packages in hand (default: the processors this process may use)."""
    wall_seconds: Annotated[float, Field(gt=0)] = 3600
    """Longest run of one program."""
    idle_seconds: Annotated[float, Field(gt=0)] = 600
    """Longest time in which a program neither writes output nor uses the processor."""
    memory_bytes: Annotated[int, Field(ge=16 * 2**20)] = 4 * 2**30
    """Most address space that one program may take (RLIMIT_AS)."""
    output_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**20
    """Most that one program may write to its standard output."""
    file_bytes: Annotated[int, Field(ge=2**20)] = 2**40
    """Largest file that one program may write (RLIMIT_FSIZE)."""
    path: str = ""
    """Folders, divided by colons, in which programs are looked for after the system's own (default: PATH)."""
    sandbox: Sandbox = Sandbox.AUTO
    """Run programs without network, and let them write nowhere but where their result is to be (Landlock and seccomp).
    `auto`: as far as the kernel can; `required`: or not at all; `off`: for rules whose programs need the network."""


class UnpackSettings(Model):
    """Limits for archives, against bombs."""

    max_entries: Annotated[int, Field(ge=1)] = 2_000_000
    """Most files and folders in one archive."""
    max_bytes: Annotated[int, Field(ge=1)] = 2 * 2**40
    """Most bytes that one archive may unpack to."""
    max_ratio: Annotated[float, Field(ge=1)] = 1000
    """Most bytes out for a byte in, once `ratio_from_bytes` are out."""
    ratio_from_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """How many bytes must be out before the ratio counts."""
    max_depth: Annotated[int, Field(ge=1)] = 200
    """Most folders within one another."""
    max_nesting: Annotated[int, Field(ge=1)] = 10
    """Most archives within one another that are unpacked among the objects. Entries, bytes and ratio also limit what
    all archives of a package unpack to together."""


class ScannerChoice(StrEnum):
    """What scans for malware."""

    AUTO = "auto"
    CLAMD = "clamd"
    CLAMSCAN = "clamscan"
    OFF = "off"


class OnInfected(StrEnum):
    """What becomes of a package in which malware was found. It always fails."""

    FAIL = "fail"
    QUARANTINE = "quarantine"


class ClamAVSettings(Model):
    """The scan for malware with ClamAV. Set `AlertExceedsMax yes` in clamd.conf: without it, clamd says OK of what it
    did not read to the end.
    """

    scanner: ScannerChoice = ScannerChoice.AUTO
    """`clamd`, `clamscan` (slow: it loads its signatures for every few files), `auto` for the one that is there, clamd
    first, or `off`."""
    address: str = ""
    """Where clamd listens: the path of its socket, or `HOST:PORT`; while it is away, packages wait. Empty: the sockets
    of the usual distributions, if clamd answers there."""
    max_file_bytes: Annotated[int, Field(ge=1)] = 100 * 2**20
    """clamd's MaxFileSize: an OK for a larger file is not believed. clamscan is told it."""
    max_scan_bytes: Annotated[int, Field(ge=1)] = 400 * 2**20
    """Most that clamscan reads of one file with everything in it."""
    max_stream_bytes: Annotated[int, Field(ge=1)] = 100 * 2**20
    """clamd's StreamMaxLength: the largest file that is sent over TCP."""
    answer_seconds: Annotated[float, Field(gt=0)] = 600
    """Longest silence of clamd while it scans."""
    definitions: LocalPath | None = None
    """Folder of the signatures for clamscan, where it is not the usual one."""
    on_infected: OnInfected = OnInfected.FAIL
    """`fail`: the package fails and its folder is kept; `quarantine`: and nobody but the service may enter it."""


class NormalizationSettings(Model):
    """What normalization may take for one file. One that would take more keeps its original alone, with a warning."""

    seconds: Annotated[float, Field(gt=0)] = 3600
    """Longest run of the program for one file (`tools.wall_seconds` and the command's own limit hold as well)."""
    max_bytes: Annotated[int, Field(ge=1)] = 2**40
    """Largest derivative."""
    max_ratio: Annotated[float, Field(gt=0)] = 200
    """Most bytes out for a byte in, once a derivative is larger than `ratio_from_bytes`. Video without loss is often
    fifty times as large as what cameras write."""
    ratio_from_bytes: Annotated[int, Field(ge=1)] = 2**30
    """How large a derivative may be whatever it was made of."""


class MetadataXmlSettings(Model):
    """Validation of the XML documents that `metadata/source-metadata.csv` names."""

    schemas: Mapping[str, Annotated[Literal[""] | LocalPath, Field(union_mode="left_to_right")]] = Field(
        default_factory=dict
    )
    """Schemas (`.xsd`, `.rng`, `.dtd`) by what tells a document's kind, the first of these that is set: its type in the
    CSV, a schema that it names, its namespace, the name of its root element. An empty path: such documents are not
    validated. With nothing set at all, none is."""
    fail_on_error: bool = False
    """Fail the package for a document that is not valid, cannot be read, or is of no kind set here. Otherwise that is a
    warning, and the METS refers to the document instead of holding it."""


class SourceSettings(Model):
    """Where sources may come from."""

    schemes: tuple[str, ...] = ("file", "http", "https", "s3", "az", "gs")
    """URL schemes that requests may name."""
    roots: tuple[LocalPath, ...] = ()
    """Folders that `file` sources must be, or lie below. Requests from the broker may read nothing outside; the command
    line and the library, which run as their user, may read everything when this is empty."""
    hosts: tuple[str, ...] = ()
    """Hosts that `http(s)` sources may be fetched from; empty for every public one. An address that is not public
    (loopback, private, link-local, such as cloud metadata) must be named here."""
    buckets: tuple[str, ...] = ()
    """URLs below which sources in object stores must lie: `s3://BUCKET/PREFIX`. Requests from the broker may read
    nothing outside; the command line and the library, when this is empty, all that they have credentials for."""
    max_bytes: Annotated[int, Field(ge=1)] = 2 * 2**40
    """Largest source."""
    max_files: Annotated[int, Field(ge=1)] = 2_000_000
    """Most files in one source."""
    fetch_txt: bool = False
    """Fetch the files that a bag's `fetch.txt` names, from where sources may be fetched. Off: such bags are refused."""
    http_timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """Longest silence of an HTTP server."""
    http_attempts: Annotated[int, Field(ge=1)] = 5
    """How often an interrupted download is taken up again."""


class OrganizationSettings(Model):
    """The organization that runs the repository: a PREMIS agent in every AIP, and the bag's Source-Organization."""

    identifier: str = "ORG"
    """Its identifier, for instance an ISIL."""
    name: str = "Your Organization Name Here"
    """Its name."""


class RightsRules(StrEnum):
    """How strictly `metadata/rights.csv` is read."""

    ARCHIVEMATICA = "archivematica"
    STRICT = "strict"


class MetsProfile(StrEnum):
    """How an AIP's METS is written."""

    ARCHIVEMATICA = "archivematica"
    COMPACT = "compact"


class MetsSettings(Model):
    """The METS of AIPs."""

    profile: MetsProfile = MetsProfile.ARCHIVEMATICA
    """`archivematica`: valid by the rules of Archivematica's own tools (its schematron); `compact`: agents once in a
    document, no empty elements, a third smaller; METS and PREMIS all the same, and metsrw reads it."""


class MetadataSettings(Model):
    """Metadata files that come with a transfer."""

    rights_rules: RightsRules = RightsRules.ARCHIVEMATICA
    """`archivematica`: what rights.csv says by halves, or where nothing can hold it, is a warning. `strict`: it is an
    error: a copyright without status or jurisdiction, a statute without jurisdiction or citation, columns that do not
    belong to the basis, an act without restriction, half a documentation identifier, odd dates, a file, basis and act
    twice."""


class Settings(Model):
    """Everything that can be set."""

    data_dir: LocalPath = Field(default_factory=_data_dir)
    """Where packages are worked on and the service's journal is kept. Must survive a restart."""
    locations: Mapping[str, str | LocationSettings] = Field(default_factory=dict)
    """Archival storage, by name, each a URL or a table: `{"primary": "file:///srv/aips"}`. Empty: `aips` in the data
    folder, as `primary`."""
    credentials: Mapping[str, CredentialSettings] = Field(default_factory=dict)
    """Accounts at object stores, by name, for locations and for the sources of requests."""
    default_location: str = "primary"
    """Where an AIP goes whose request names no location."""
    concurrent_packages: Annotated[int, Field(ge=1)] = max(1, (CPUS + 1) // 2)
    """How many packages are worked on at once."""
    workflow: LocalPath | None = None
    """Another workflow than the one ingestd ships."""
    fpr_folders: tuple[LocalPath, ...] = ()
    """Folders with a site's own records for the format policy registry, laid over the shipped ones in this order."""
    fpr_overrides: bool = False
    """Whether a request may bring rules of its own for the format policy (field `fpr`): choose among the registry's
    commands, do without rules. It never brings commands."""
    policies: LocalPath | None = None
    """Folder of MediaConch policies (XML files), which sound and film are checked against. Those in its folders
    `original`, `preservation` and `access` are for originals, preservation copies and access copies alone."""
    digest_algorithm: DigestAlgorithm = DigestAlgorithm.SHA256
    """Message digest of files and of the bag's manifests."""
    organization: OrganizationSettings = OrganizationSettings()
    removable_files: tuple[str, ...] = ("Thumbs.db", "Icon", "Icon\r", ".DS_Store", "desktop.ini")
    """Names of files that operating systems leave behind and that are removed."""
    keep_cancellations_seconds: Annotated[float, Field(gt=0)] = 7 * 86400
    """How long a cancellation waits for a request that has not come yet."""
    lease_seconds: Annotated[float, Field(ge=1)] = 60
    """How long a worker may be silent before another may take over what it has in hand. The clocks of workers must
    agree to within five seconds."""
    crash_limit: Annotated[int, Field(ge=1)] = 5
    """How many workers may die with a request in hand before it fails (`system.crash_loop`)."""
    keep_published_seconds: Annotated[float, Field(gt=0)] = 7 * 86400
    """How long the service's journal keeps copies of results that are published (each request keeps its own)."""
    audit_every_seconds: Annotated[float, Field(ge=0)] = 0
    """How often `serve` reads all of archival storage again and publishes what it finds (2592000: every 30 days); 0:
    never. Set it for one worker of several."""
    audit_bytes_per_second: Annotated[float, Field(ge=0)] = 0
    """How fast `serve` reads for its audit, on average; 0: as fast as it can."""
    keep_work: bool = False
    """Keep a package's working folder after its AIP is stored."""
    shutdown_seconds: Annotated[float, Field(gt=0)] = 25
    """How long a stop may take (Kubernetes waits 30 seconds by default)."""
    processing_from_transfer: bool = True
    """Follow the `processingMCP.xml` at the top of a transfer, in what its request does not say. Off: it is kept, and
    nothing more."""
    processing: Mapping[str, bool | int | str] = Field(default_factory=dict)
    """Processing options that differ from the defaults, for every request that does not name them itself."""
    amqp: AmqpSettings = AmqpSettings()
    tools: ToolSettings = ToolSettings()
    unpack: UnpackSettings = UnpackSettings()
    clamav: ClamAVSettings = ClamAVSettings()
    normalization: NormalizationSettings = NormalizationSettings()
    sources: SourceSettings = SourceSettings()
    preflight: PreflightSettings = PreflightSettings()
    admission: AdmissionSettings = AdmissionSettings()
    janitor: JanitorSettings = JanitorSettings()
    metadata: MetadataSettings = MetadataSettings()
    metadata_xml: MetadataXmlSettings = MetadataXmlSettings()
    mets: MetsSettings = MetsSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    http_host: str = "127.0.0.1"
    """Address of the health and metrics port."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Port of `/healthz`, `/readyz` and `/metrics`; 0 switches it off."""
    log_format: Annotated[str, Field(pattern="^(json|console|auto)$")] = "auto"
    """`json`, `console`, or `auto`: console on a terminal, JSON elsewhere."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """What is logged."""

    @classmethod
    def load(cls, file: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `file` (or the one that INGESTD_CONFIG names) and from the environment.

        Raises `SystemFault` (`system.configuration`) that names every setting that is wrong.
        """
        env = dict(os.environ if environ is None else environ)  # noqa: TID251  the one door
        path = file or (Path(env[f"{PREFIX}CONFIG"]) if env.get(f"{PREFIX}CONFIG") else None)
        values: dict[str, Any] = {"tools": {"path": env.get("PATH", "")}}
        _merge(values, _read_toml(path) if path else {})
        _merge(values, _from_environ(env))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            violations = tuple(_violation(item) for item in error.errors(include_input=False))
            unknown = ", ".join(one.path for one in violations if one.rule == _UNKNOWN)
            wrong = ", ".join(one.path for one in violations if one.rule != _UNKNOWN)
            said = [f"there is no setting {unknown}"] * bool(unknown) + [f"not valid: {wrong}"] * bool(wrong)
            raise SystemFault("; ".join(said), code=Code.SYSTEM_CONFIGURATION, violations=violations) from error

    @property
    def work_dir(self) -> Path:
        return self.data_dir / "work"

    @property
    def scratch_dir(self) -> Path:
        return self.data_dir / "scratch"

    @property
    def journal_path(self) -> Path:
        return self.data_dir / "service.db"

    @property
    def all_locations(self) -> Mapping[str, str | LocationSettings]:
        """Locations by name, with the default one where none is set."""
        return self.locations or {"primary": (self.data_dir / "aips").absolute().as_uri()}


def _violation(item: Any) -> Violation:
    """What pydantic found wrong with a setting; of one that there is not, the nearest that there is."""
    *sections, name = (part for part in map(str, item["loc"]) if "[" not in part)  # which is pydantic's own
    path = ".".join([*sections, name])
    if item["type"] == "tuple_type":
        return Violation(path=path, rule=item["type"], expected='a list; in a variable as JSON: ["one", "another"]')
    if item["type"] != "extra_forbidden":
        return Violation(path=path, rule=item["type"], expected=item["msg"])
    return Violation(path=path, rule=_UNKNOWN, expected=nearest(name, _settings_of(sections)))


def _settings_of(sections: Sequence[str]) -> list[str]:
    """The settings in a section; of a table with names of the site's own (`credentials.NAME`), in what is named."""
    model: type[BaseModel] = Settings
    for section in sections:
        if section in model.model_fields:
            model = next(_models(model.model_fields[section].annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SystemFault(f"cannot read settings from {path}: {error}", code=Code.SYSTEM_CONFIGURATION) from error


def _from_environ(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in sorted(env.items()):
        if not name.startswith(PREFIX) or name == f"{PREFIX}CONFIG" or text == "":
            continue
        keys = name.removeprefix(PREFIX).lower().split("__")
        _merge(values, _nest(keys, _parse(text)))
    return values


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _parse(text: str) -> Any:
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
