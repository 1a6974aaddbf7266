"""Every error of ingestd, as data that a person or a program can act on.

::

    IngestError                      code, detail, violations, remediation, tool, stderr_tail
    ├── RequestError     request.*      the message asks for something that cannot be asked for
    ├── SourceError      source.*       what should be preserved cannot be had as promised
    ├── ContentError     content.*      what was received cannot be preserved as it is
    ├── PolicyError      policy.*       a rule of this repository forbids it
    ├── ToolError        tool.*         an external program failed
    ├── ResourceError    resource.*     disk, memory or inodes ran out
    ├── DependencyError  dependency.*   a service that ingestd stands on is away
    ├── StorageError     storage.*      archival storage did not take, or keep, the AIP
    ├── SystemFault      system.*       a defect in ingestd itself
    └── Cancelled        cancelled.*    somebody or a deadline stopped it

The list of codes is closed: `CATALOGUE` names each with its title, who can mend it, when a retry makes
sense and what to do. Schemas and documentation are generated from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Responsible(StrEnum):
    """Who can mend an error."""

    SUBMITTER = "submitter"
    OPERATOR = "operator"
    CURATOR = "curator"
    DEVELOPER = "developer"


class Retry(StrEnum):
    """When trying the same request again makes sense."""

    NEVER = "never"
    ONCE = "once"
    BOUNDED = "bounded"
    LATER = "later"
    WITH_BACKOFF = "with_backoff"
    IF_PROVEN_ABSENT = "if_proven_absent"


class Code(StrEnum):
    """The closed list of error codes, `<category>.<name>`."""

    REQUEST_SCHEMA_INVALID = "request.schema_invalid"
    REQUEST_UNKNOWN_OPTION = "request.unknown_option"
    REQUEST_UNKNOWN_LOCATION = "request.unknown_location"
    REQUEST_POLICY_REFUSED = "request.policy_refused"
    REQUEST_UNSUPPORTED_SOURCE = "request.unsupported_source"
    REQUEST_IDEMPOTENCY_CONFLICT = "request.idempotency_conflict"
    REQUEST_EXPIRED = "request.expired"
    REQUEST_IDENTIFIER_INVALID = "request.identifier_invalid"
    SOURCE_NOT_FOUND = "source.not_found"
    SOURCE_ACCESS_DENIED = "source.access_denied"
    SOURCE_CHANGED = "source.changed"
    SOURCE_CHECKSUM_MISMATCH = "source.checksum_mismatch"
    SOURCE_DOWNLOAD_INTERRUPTED = "source.download_interrupted"
    CONTENT_ARCHIVE_CORRUPT = "content.archive_corrupt"
    CONTENT_ARCHIVE_ENCRYPTED = "content.archive_encrypted"
    CONTENT_ARCHIVE_UNSUPPORTED = "content.archive_unsupported"
    CONTENT_ARCHIVE_BOMB = "content.archive_bomb"
    CONTENT_PATH_TRAVERSAL = "content.path_traversal"
    CONTENT_NAME_COLLISION = "content.name_collision"
    CONTENT_BAG_INVALID = "content.bag_invalid"
    CONTENT_CHECKSUM_MANIFEST_MISMATCH = "content.checksum_manifest_mismatch"
    CONTENT_METADATA_INVALID = "content.metadata_invalid"
    CONTENT_PREMIS_INVALID = "content.premis_invalid"
    CONTENT_STRUCTURE_INVALID = "content.structure_invalid"
    CONTENT_AIP_INVALID = "content.aip_invalid"
    CONTENT_EMPTY = "content.empty"
    CONTENT_INFECTED = "content.infected"
    POLICY_FORMAT_NOT_ALLOWED = "policy.format_not_allowed"
    POLICY_VIRUS_NOT_SCANNED = "policy.virus_not_scanned"
    POLICY_SIZE_OVER_LIMIT = "policy.size_over_limit"
    POLICY_TOO_MANY_FILES = "policy.too_many_files"
    TOOL_TIMEOUT = "tool.timeout"
    TOOL_CRASHED = "tool.crashed"
    TOOL_KILLED_MEMORY = "tool.killed_memory"
    TOOL_NOT_INSTALLED = "tool.not_installed"
    TOOL_BAD_OUTPUT = "tool.bad_output"
    RESOURCE_DISK = "resource.disk"
    RESOURCE_MEMORY = "resource.memory"
    RESOURCE_INODES = "resource.inodes"
    DEPENDENCY_BROKER = "dependency.broker"
    DEPENDENCY_STORAGE_UNAVAILABLE = "dependency.storage_unavailable"
    DEPENDENCY_STORAGE_AUTH = "dependency.storage_auth"
    DEPENDENCY_CLAMD_UNAVAILABLE = "dependency.clamd_unavailable"
    STORAGE_UPLOAD_FAILED = "storage.upload_failed"
    STORAGE_VERIFY_MISMATCH = "storage.verify_mismatch"
    STORAGE_CONFLICT = "storage.conflict"
    STORAGE_INSUFFICIENT_COPIES = "storage.insufficient_copies"
    STORAGE_DIP_FAILED = "storage.dip_failed"
    STORAGE_OUTCOME_UNKNOWN = "storage.outcome_unknown"
    SYSTEM_BUG = "system.bug"
    SYSTEM_STALLED = "system.stalled"
    SYSTEM_CRASH_LOOP = "system.crash_loop"
    SYSTEM_CONFIGURATION = "system.configuration"
    SYSTEM_WORKFLOW_INVALID = "system.workflow_invalid"
    CANCELLED_BY_USER = "cancelled.by_user"
    CANCELLED_BY_DEADLINE = "cancelled.by_deadline"
    CANCELLED_BY_BATCH = "cancelled.by_batch"

    @property
    def category(self) -> str:
        return self.value.partition(".")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What the catalogue says of one code."""

    title: str
    responsible: Responsible
    retry: Retry
    remediation: str

    @property
    def retryable(self) -> bool:
        return self.retry is not Retry.NEVER


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One rule that one thing breaks. `path` is within the package or the request, never of this server."""

    path: str
    rule: str
    expected: str = ""
    actual: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFailure:
    """How a run of an external program ended."""

    name: str
    version: str = ""
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False


def nearest(name: str, known: Collection[str]) -> str:
    """What to expect in place of a name that is not known: the nearest that is, or else all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"


class IngestError(Exception):
    """The root: a failure with a code of the catalogue and a sentence of what happened.

    `detail` says what happened in this case; `remediation` what to do about it (the catalogue's words unless
    better ones are given); `violations` lists everything that was found wrong, not only the first.
    """

    default_code: ClassVar[Code] = Code.SYSTEM_BUG

    def __init__(
        self,
        detail: str,
        *,
        code: Code | None = None,
        violations: tuple[Violation, ...] = (),
        remediation: str = "",
        tool: ToolFailure | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(detail)
        self.code = code or self.default_code
        self.detail = detail
        self.violations = violations
        self.remediation = remediation or CATALOGUE[self.code].remediation
        self.tool = tool
        self.stderr_tail = stderr_tail

    @property
    def entry(self) -> Entry:
        return CATALOGUE[self.code]


class RequestError(IngestError):
    default_code = Code.REQUEST_SCHEMA_INVALID


class SourceError(IngestError):
    default_code = Code.SOURCE_NOT_FOUND


class ContentError(IngestError):
    default_code = Code.CONTENT_STRUCTURE_INVALID


class PolicyError(IngestError):
    default_code = Code.POLICY_FORMAT_NOT_ALLOWED


class ToolError(IngestError):
    default_code = Code.TOOL_CRASHED


class ResourceError(IngestError):
    default_code = Code.RESOURCE_DISK


class DependencyError(IngestError):
    default_code = Code.DEPENDENCY_BROKER


class StorageError(IngestError):
    default_code = Code.STORAGE_UPLOAD_FAILED


class SystemFault(IngestError):
    default_code = Code.SYSTEM_BUG


class Cancelled(IngestError):
    default_code = Code.CANCELLED_BY_USER


_S, _O, _C, _D = Responsible.SUBMITTER, Responsible.OPERATOR, Responsible.CURATOR, Responsible.DEVELOPER


def _e(title: str, responsible: Responsible, retry: Retry, remediation: str) -> Entry:
    return Entry(title=title, responsible=responsible, retry=retry, remediation=remediation)


CATALOGUE: dict[Code, Entry] = {
    Code.REQUEST_SCHEMA_INVALID: _e(
        "The request is not valid",
        _S,
        Retry.NEVER,
        "Correct what the violations name and send the request again; schemas/request.schema.json is the contract.",
    ),
    Code.REQUEST_UNKNOWN_OPTION: _e(
        "The request names a processing option that does not exist",
        _S,
        Retry.NEVER,
        "Use only the processing options that the README lists; the violation names the nearest one.",
    ),
    Code.REQUEST_UNKNOWN_LOCATION: _e(
        "The request names a storage location that is not configured",
        _S,
        Retry.NEVER,
        "Name one of the configured locations, or ask the operator to configure it.",
    ),
    Code.REQUEST_POLICY_REFUSED: _e(
        "The request brings format policy rules of its own, which this service does not allow",
        _S,
        Retry.NEVER,
        "Send the request without the field `fpr`, or ask the operator to allow it (setting fpr_overrides).",
    ),
    Code.REQUEST_UNSUPPORTED_SOURCE: _e(
        "The source is of a kind that this service does not, or may not, read",
        _S,
        Retry.NEVER,
        "Use a source with an allowed scheme below an allowed root, or ask the operator to allow it "
        "(settings sources.schemes and sources.roots).",
    ),
    Code.REQUEST_IDEMPOTENCY_CONFLICT: _e(
        "The idempotency key was used before for something else",
        _S,
        Retry.NEVER,
        "Send different content with its own idempotency key.",
    ),
    Code.REQUEST_EXPIRED: _e(
        "The request came after its deadline", _S, Retry.NEVER, "Send the request again with a later deadline."
    ),
    Code.REQUEST_IDENTIFIER_INVALID: _e(
        "A name or identifier in the request cannot be used",
        _S,
        Retry.NEVER,
        "Use a name of 1 to 200 characters without slashes and control characters.",
    ),
    Code.SOURCE_NOT_FOUND: _e(
        "The source does not exist",
        _S,
        Retry.BOUNDED,
        "Check the location; if the upload was still under way, send the request again when it is done.",
    ),
    Code.SOURCE_ACCESS_DENIED: _e(
        "The source may not be read",
        _O,
        Retry.BOUNDED,
        "Give the service's account the right to read everything in the source.",
    ),
    Code.SOURCE_CHANGED: _e(
        "The source changed while it was read",
        _S,
        Retry.BOUNDED,
        "Send the request again when nothing writes to the source any more.",
    ),
    Code.SOURCE_CHECKSUM_MISMATCH: _e(
        "The source is not what the request's checksum says",
        _S,
        Retry.BOUNDED,
        "Compare the checksum with the source; upload the source again if it was damaged on the way.",
    ),
    Code.SOURCE_DOWNLOAD_INTERRUPTED: _e(
        "The source could not be fetched to its end",
        _O,
        Retry.BOUNDED,
        "Try again; if it persists, look at the server of the source and the network between.",
    ),
    Code.CONTENT_ARCHIVE_CORRUPT: _e(
        "The archive is damaged",
        _S,
        Retry.NEVER,
        "Open the archive on your side, repair or re-create it, and send it again.",
    ),
    Code.CONTENT_ARCHIVE_ENCRYPTED: _e(
        "The archive is encrypted",
        _S,
        Retry.NEVER,
        "Make the archive anew without a password, and send it again.",
    ),
    Code.CONTENT_ARCHIVE_UNSUPPORTED: _e(
        "The archive is of a kind that cannot be opened",
        _S,
        Retry.NEVER,
        "Send a folder, or a zip, tar, 7z or rar archive made with common settings.",
    ),
    Code.CONTENT_ARCHIVE_BOMB: _e(
        "The archive unpacks to more than is allowed",
        _S,
        Retry.NEVER,
        "Send less at once, or ask the operator to raise the limits that the violation names.",
    ),
    Code.CONTENT_PATH_TRAVERSAL: _e(
        "Something in the source leads out of it",
        _S,
        Retry.NEVER,
        "Remove the links and entries that the violations name, and send it again.",
    ),
    Code.CONTENT_NAME_COLLISION: _e(
        "Two things in the source have the same name",
        _S,
        Retry.NEVER,
        "Rename what the violations name, and send it again.",
    ),
    Code.CONTENT_BAG_INVALID: _e(
        "The bag is not complete or not intact", _S, Retry.NEVER, "Make the bag again from the originals."
    ),
    Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH: _e(
        "A checksum file does not match the files",
        _S,
        Retry.NEVER,
        "Make the checksum file again from the originals, or replace the damaged files.",
    ),
    Code.CONTENT_METADATA_INVALID: _e(
        "A metadata file cannot be used",
        _S,
        Retry.NEVER,
        "Correct the lines that the violations name; each shows what was expected.",
    ),
    Code.CONTENT_PREMIS_INVALID: _e(
        "The PREMIS document cannot be used", _S, Retry.NEVER, "Correct what the violations name."
    ),
    Code.CONTENT_STRUCTURE_INVALID: _e(
        "What was received cannot be laid out as a transfer",
        _S,
        Retry.NEVER,
        "Correct what the violations name, and send it again.",
    ),
    Code.CONTENT_AIP_INVALID: _e(
        "The AIP is not what it says",
        _C,
        Retry.NEVER,
        "Look at the findings (`ingestd aip verify` gives them too), and reingest a copy that is whole.",
    ),
    Code.CONTENT_EMPTY: _e(
        "There is nothing to preserve",
        _S,
        Retry.NEVER,
        "Send a source with at least one file that is neither hidden nor a system file.",
    ),
    Code.CONTENT_INFECTED: _e(
        "Malware was found", _C, Retry.NEVER, "Clean or remove the files that the violations name."
    ),
    Code.POLICY_FORMAT_NOT_ALLOWED: _e(
        "A format is not accepted by this repository", _C, Retry.NEVER, "Convert the files, or change the policy."
    ),
    Code.POLICY_VIRUS_NOT_SCANNED: _e(
        "Files could not be scanned for malware",
        _C,
        Retry.NEVER,
        "Raise the scanner's limits, or allow unscanned files by policy.",
    ),
    Code.POLICY_SIZE_OVER_LIMIT: _e(
        "The source is larger than is allowed",
        _O,
        Retry.NEVER,
        "Send it in parts, or raise the limit that the violation names.",
    ),
    Code.POLICY_TOO_MANY_FILES: _e(
        "The source has more files than is allowed",
        _O,
        Retry.NEVER,
        "Send it in parts, or raise the limit that the violation names.",
    ),
    Code.TOOL_TIMEOUT: _e(
        "A program took too long and was stopped",
        _O,
        Retry.ONCE,
        "Look at the file it worked on; raise the tool's time limit if the file is sound.",
    ),
    Code.TOOL_CRASHED: _e(
        "A program failed", _O, Retry.ONCE, "Look at the end of its error output, which is kept with this error."
    ),
    Code.TOOL_KILLED_MEMORY: _e(
        "A program needed more memory than it may have", _O, Retry.ONCE, "Raise the memory limit for tools."
    ),
    Code.TOOL_NOT_INSTALLED: _e(
        "A program is not installed", _O, Retry.ONCE, "Install it; `ingestd doctor` lists what is missing."
    ),
    Code.TOOL_BAD_OUTPUT: _e(
        "A program wrote something that cannot be used",
        _D,
        Retry.ONCE,
        "Run the program by hand on the same file and compare; report it with the program's version.",
    ),
    Code.RESOURCE_DISK: _e(
        "There is not enough disk space",
        _O,
        Retry.LATER,
        "Free space or enlarge the volume that the detail names; the numbers say how much is needed.",
    ),
    Code.RESOURCE_MEMORY: _e(
        "There is not enough memory", _O, Retry.LATER, "Give the service more memory, or fewer packages at once."
    ),
    Code.RESOURCE_INODES: _e(
        "The file system can hold no more files", _O, Retry.LATER, "Free inodes on the volume that the detail names."
    ),
    Code.DEPENDENCY_BROKER: _e(
        "The message broker is away", _O, Retry.WITH_BACKOFF, "Look at RabbitMQ; the service reconnects by itself."
    ),
    Code.DEPENDENCY_STORAGE_UNAVAILABLE: _e(
        "Archival storage is away", _O, Retry.WITH_BACKOFF, "Look at the storage that the detail names."
    ),
    Code.DEPENDENCY_STORAGE_AUTH: _e(
        "Archival storage refused the credentials", _O, Retry.WITH_BACKOFF, "Renew the credentials."
    ),
    Code.DEPENDENCY_CLAMD_UNAVAILABLE: _e(
        "The virus scanner is away", _O, Retry.WITH_BACKOFF, "Start clamd, or switch scanning off by setting."
    ),
    Code.STORAGE_UPLOAD_FAILED: _e(
        "The AIP could not be written to archival storage",
        _O,
        Retry.IF_PROVEN_ABSENT,
        "Look at the storage that the detail names, then resume the package.",
    ),
    Code.STORAGE_VERIFY_MISMATCH: _e(
        "What was stored is not what was written",
        _O,
        Retry.IF_PROVEN_ABSENT,
        "Check the storage medium before anything else is stored on it.",
    ),
    Code.STORAGE_CONFLICT: _e(
        "Something else is stored where this AIP belongs", _C, Retry.NEVER, "Compare the two; nothing was overwritten."
    ),
    Code.STORAGE_INSUFFICIENT_COPIES: _e(
        "Fewer copies were stored than asked for",
        _O,
        Retry.IF_PROVEN_ABSENT,
        "Look at the locations that the detail names, then resume the package.",
    ),
    Code.STORAGE_DIP_FAILED: _e(
        "The DIP was not made or not stored",
        _O,
        Retry.NEVER,
        "The AIP is whole. Mend what the detail names; what is ingested after that has its DIP.",
    ),
    Code.STORAGE_OUTCOME_UNKNOWN: _e(
        "Whether the AIP is stored cannot be told",
        _O,
        Retry.IF_PROVEN_ABSENT,
        "When the storage answers again, run `ingestd reconcile`: it looks, and stores what is not there.",
    ),
    Code.SYSTEM_BUG: _e(
        "ingestd itself failed",
        _D,
        Retry.NEVER,
        "Report it with the detail and the log; the package's folder is kept and can be resumed.",
    ),
    Code.SYSTEM_STALLED: _e(
        "Nothing moved for too long", _O, Retry.NEVER, "Look at the link that the error names, then resume."
    ),
    Code.SYSTEM_CRASH_LOOP: _e(
        "The worker died again and again on this request",
        _O,
        Retry.NEVER,
        "Look at the worker's last log lines; memory is the usual cause.",
    ),
    Code.SYSTEM_CONFIGURATION: _e(
        "A setting is not valid, or what it names cannot be used",
        _O,
        Retry.NEVER,
        "Correct the setting; `ingestd config` shows what is in force.",
    ),
    Code.SYSTEM_WORKFLOW_INVALID: _e(
        "The workflow is not valid", _O, Retry.NEVER, "Correct what `ingestd workflow check` names."
    ),
    Code.CANCELLED_BY_USER: _e(
        "The request was cancelled", _S, Retry.NEVER, "Nothing, if it was meant; otherwise send it again."
    ),
    Code.CANCELLED_BY_DEADLINE: _e(
        "The deadline of the request passed", _S, Retry.NEVER, "Send it again with more time."
    ),
    Code.CANCELLED_BY_BATCH: _e(
        "Another request of the batch failed", _S, Retry.NEVER, "Mend what failed, then retry this one too."
    ),
}
