"""Records of the format policy registry, as Archivematica's users know them.

A *format group* holds *formats*, a format holds *format versions*, and what is done to a format version is said by
*rules*: a rule gives a *purpose* and a *command*, a command is run by a *tool*. *Identification commands* and
*identification rules* say how a format version is recognized where Siegfried is not asked.

An `id` is what other records refer to: a PUID for a format version that has one, words elsewhere, a UUID in what was
imported. `uuid` is the identifier that Archivematica gave the same record, where there is one; `identifier` is a UUID
for every record and never changes, so that events and exports can name it. A record that `replaces` another one takes
its place everywhere; the replaced one stays as history.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

_NAMESPACE = uuid5(NAMESPACE_URL, "urn:ingestd:fpr")

_ARGUMENTS = re.compile(r"\$\{?[@#1]")


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression: {error}") from error
    return text


RegularExpression = Annotated[str, AfterValidator(_compiles)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]*$", max_length=200)]
Reference = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._:/+-]*)?$", max_length=200)]


class Purpose(StrEnum):
    """Why a rule runs its command on files of its format version."""

    CHARACTERIZATION = "characterization"
    VALIDATION = "validation"
    PRESERVATION = "preservation"
    ACCESS = "access"
    THUMBNAIL = "thumbnail"
    EXTRACT = "extract"
    TRANSCRIPTION = "transcription"
    POLICY_CHECK = "policy_check"
    DEFAULT_CHARACTERIZATION = "default_characterization"
    DEFAULT_ACCESS = "default_access"
    DEFAULT_THUMBNAIL = "default_thumbnail"


class Usage(StrEnum):
    """What a command is for. Verification and event detail are asked for by other commands, not by rules."""

    CHARACTERIZATION = "characterization"
    VALIDATION = "validation"
    NORMALIZATION = "normalization"
    EXTRACTION = "extraction"
    TRANSCRIPTION = "transcription"
    VERIFICATION = "verification"
    EVENT_DETAIL = "event_detail"


class ScriptType(StrEnum):
    """How a command's script is run; see `ingestd.fpr.substitution`."""

    COMMAND = "command"
    BASH_SCRIPT = "bashScript"
    PYTHON_SCRIPT = "pythonScript"
    AS_IS = "as_is"


class Adapter(StrEnum):
    """A tool that ingestd keeps running. The answer is the one that the command's own script gives, only sooner."""

    EXIFTOOL = "exiftool"
    MEDIAINFO = "mediainfo"
    FFPROBE = "ffprobe"
    JHOVE = "jhove"


class Kind(StrEnum):
    """The kinds of records, as they are named in files, messages and on the command line."""

    GROUP = "group"
    FORMAT = "format"
    VERSION = "version"
    TOOL = "tool"
    COMMAND = "command"
    RULE = "rule"
    IDENTIFICATION_COMMAND = "identification_command"
    IDENTIFICATION_RULE = "identification_rule"


DEFAULT_OF = {
    Purpose.CHARACTERIZATION: Purpose.DEFAULT_CHARACTERIZATION,
    Purpose.ACCESS: Purpose.DEFAULT_ACCESS,
    Purpose.THUMBNAIL: Purpose.DEFAULT_THUMBNAIL,
}
"""The purpose whose rules are taken where a format version has none of its own."""

USAGE_OF = {
    Purpose.CHARACTERIZATION: Usage.CHARACTERIZATION,
    Purpose.VALIDATION: Usage.VALIDATION,
    Purpose.PRESERVATION: Usage.NORMALIZATION,
    Purpose.ACCESS: Usage.NORMALIZATION,
    Purpose.THUMBNAIL: Usage.NORMALIZATION,
    Purpose.EXTRACT: Usage.EXTRACTION,
    Purpose.TRANSCRIPTION: Usage.TRANSCRIPTION,
    Purpose.POLICY_CHECK: Usage.VALIDATION,
    Purpose.DEFAULT_CHARACTERIZATION: Usage.CHARACTERIZATION,
    Purpose.DEFAULT_ACCESS: Usage.NORMALIZATION,
    Purpose.DEFAULT_THUMBNAIL: Usage.NORMALIZATION,
}
"""The usage that the command of a rule must have."""

NORMALIZATIONS = frozenset({Purpose.PRESERVATION, Purpose.ACCESS, Purpose.THUMBNAIL})
"""Purposes that may have one active rule for a format version, and no more."""

SINGLE = NORMALIZATIONS | {Purpose.EXTRACT, Purpose.DEFAULT_ACCESS, Purpose.DEFAULT_THUMBNAIL}
"""Purposes of which one rule is run; of all others every rule is."""

UNKNOWN = "unknown-file-format"
"""The format version on which default rules hang, as in Archivematica's registry."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: ClassVar[Kind]

    id: Id
    """What other records refer to."""
    uuid: UUID | None = None
    """Archivematica's identifier of the same record."""
    enabled: bool = True
    """Whether the record takes part; a disabled one is history."""
    replaces: Reference = ""
    """The record of the same kind whose place this one takes."""
    modified: str = ""
    """When the record was last changed, where somebody wrote it down (RFC 3339)."""
    note: str = ""
    """Why the record is as it is."""

    @cached_property
    def identifier(self) -> UUID:
        """A UUID that stays the same wherever this registry is loaded."""
        if self.uuid:
            return self.uuid
        try:
            return UUID(self.id)
        except ValueError:
            return uuid5(_NAMESPACE, f"{self.kind}/{self.id}")


class Group(Record):
    """A group of formats that share how they are treated, such as `Image (Raster)`."""

    kind = Kind.GROUP

    name: str


class Format(Record):
    """A format, of whatever version, such as `Portable Network Graphics`."""

    kind = Kind.FORMAT

    name: str
    group: Id


class FormatVersion(Record):
    """A format as identification tells it apart, with its PUID. Rules hang on these."""

    kind = Kind.VERSION

    puid: str = ""
    """PRONOM's identifier, or that of a list that extends PRONOM; empty for a version that only people tell apart."""
    format: Id
    description: str
    """What METS says of it."""
    version: str = ""
    preservation: bool = False
    """Fit to be kept as it is."""
    access: bool = False
    """Fit to be given to readers as it is."""

    @property
    def designation(self) -> tuple[str, str]:
        """PREMIS formatName and formatVersion (1.5.4.1): what is known of a file whose format has no PUID."""
        return self.description, self.version


class Tool(Record):
    """A program. Its version is asked where it runs, never written here."""

    kind = Kind.TOOL

    name: str
    program: str = ""
    """What is looked for on PATH; empty for what ingestd does itself."""
    version_command: tuple[str, ...] = ()
    """Arguments, the program first, of the run that prints the version."""
    version_pattern: RegularExpression = ""
    """Regular expression whose group 1 is the version, searched in what that run printed."""
    python_module: str = ""
    """A module that the tool's scripts import; the tool can only be had where it can be imported."""
    noted_version: str = ""
    """The version that an imported registry wrote down. It is never said to be the one that ran."""
    debian: str = ""
    """The Debian package that brings it."""
    pypi: str = ""
    """The PyPI distribution that brings it."""

    @model_validator(mode="after")
    def _asks_for_a_version(self) -> Self:
        if bool(self.version_command) != bool(self.version_pattern):
            raise ValueError("version_command and version_pattern go together")
        if self.version_pattern and re.compile(self.version_pattern).groups < 1:
            raise ValueError("version_pattern has no group that is the version")
        return self


class Reading(BaseModel):
    """How the outcome of a validation is read off a program that was not written to print one.

    A pattern (a regular expression, searched in what was printed) that says `fail` is looked for first, then one that
    says `partial pass`, then one that says `pass`: of several outcomes in one print the worst holds. Where there are
    patterns, a run that none of them is found in has no outcome: the program did not get as far. Where there are none,
    the exit code says it, and what is no code of a pass or a partial pass is a fail.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pass_codes: tuple[int, ...] = (0,)
    """Exit codes that go with a pass."""
    partial_codes: tuple[int, ...] = ()
    """Exit codes that say partial pass: sound enough to be used, not as the specification has it."""
    pass_pattern: RegularExpression = ""
    partial_pattern: RegularExpression = ""
    fail_pattern: RegularExpression = ""
    note_pattern: RegularExpression = ""
    """What in the print goes into the note, group 1 of each match, in XML as what it spells; everything but empty
    lines, if this is empty."""

    @model_validator(mode="after")
    def _gives_a_note(self) -> Self:
        if self.note_pattern and re.compile(self.note_pattern).groups < 1:
            raise ValueError("note_pattern has no group that is the note")
        return self


class Command(Record):
    """A script, what runs it, and what it leaves behind."""

    kind = Kind.COMMAND

    tool: Id
    usage: Usage
    description: str
    script_type: ScriptType
    script: str
    exit_codes: tuple[int, ...] = (0,)
    """The exit codes that say that it did its work."""
    outcome: Reading | None = None
    """For validation: how the outcome is read; without it the script prints one (see `ingestd.fpr.contracts`)."""
    output_location: str = ""
    """Where a normalization, extraction or transcription writes, with variables in it."""
    output_format: Reference = ""
    """The format version of what it writes; XML for characterization that goes into the METS."""
    verification: Reference = ""
    """The command that looks at what was written."""
    event_detail: Reference = ""
    """The command that words the event's detail."""
    adapter: Adapter | None = None
    """Which of ingestd's own running tools answers in place of the script."""
    otherwise: Reference = ""
    """The command to run where this one's tool cannot be had."""
    alone: bool = False
    """Its tool cannot run beside itself: no other command of it that says so is run at the same time."""
    together: Annotated[int, Field(ge=1)] = 1
    """How many files one run may take. Of several, a bashScript is told pairs of arguments: what to read, what to
    write; variables that are not the same for all are empty. No two files of a run have the same name up to its
    extension. What is missing after a run that ended well, and all of one that did not, is tried in smaller runs."""
    limit_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longest run, where the setting for all programs is not right for it."""

    @model_validator(mode="after")
    def _takes_pairs(self) -> Self:
        if self.together > 1 and (self.script_type is not ScriptType.BASH_SCRIPT or not self.output_location):
            raise ValueError("together is for a bashScript with an output_location")
        # One that is not written for it would do whatever it does with empty variables.
        if self.together > 1 and not _ARGUMENTS.search(self.script):
            raise ValueError("together is for a script that reads its arguments ($@, $# or $1)")
        return self


class Rule(Record):
    """Runs a command on every file of a format version, for a purpose.

    Without an `id` it is called after its purpose and format version, and after its command too where a purpose can
    have several: a site that writes a rule for the same purpose and format version so takes the place of ours.
    """

    kind = Kind.RULE

    purpose: Purpose
    format: Id
    command: Id

    @model_validator(mode="before")
    @classmethod
    def _name_it(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("id"):
            purpose, version = values.get("purpose", ""), values.get("format", "")
            suffix = "" if purpose in SINGLE else f":{values.get('command', '')}"
            values = {**values, "id": f"{purpose}:{version}{suffix}"}
        return values


class IdentificationOutput(StrEnum):
    """What an identification command prints."""

    PUID = "PUID"
    MIME_TYPE = "MIME"
    EXTENSION = "ext"


class IdentificationCommand(Record):
    """A script that is given the path of one file and prints what it is, or nothing and exits other than 0."""

    kind = Kind.IDENTIFICATION_COMMAND

    tool: Id
    description: str
    output: IdentificationOutput = IdentificationOutput.PUID
    script_type: ScriptType
    script: str
    adapter: Literal["siegfried"] | None = None
    """Which of ingestd's own running tools answers in place of the script."""


class IdentificationRule(Record):
    """What an identification command prints for a format version."""

    kind = Kind.IDENTIFICATION_RULE

    command: Id
    format: Id
    output: str

    @model_validator(mode="before")
    @classmethod
    def _name_it(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("id"):
            digest = uuid5(_NAMESPACE, str(values.get("output", ""))).hex[:8]
            values = {**values, "id": f"{values.get('command', '')}:{values.get('format', '')}:{digest}"}
        return values


RECORDS: dict[Kind, type[Record]] = {
    record.kind: record
    for record in (
        Group,
        Format,
        FormatVersion,
        Tool,
        Command,
        Rule,
        IdentificationCommand,
        IdentificationRule,
    )
}
