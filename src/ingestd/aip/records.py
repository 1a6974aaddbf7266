"""What reading an AIP gives, as records; `dataclasses.asdict` makes JSON of them. Paths are relative to the AIP's
folder and escaped (`oais.escape_name`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ingestd.errors import Violation
from ingestd.premis import PROGRAM, Format


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Files of one kind, and their bytes as the METS says."""

    files: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatCount:
    name: str
    version: str
    puid: str
    files: int
    size_bytes: int

    @property
    def words(self) -> str:
        return Format(name=self.name, version=self.version).words


@dataclass(frozen=True, kw_only=True, slots=True)
class EventCount:
    """Events of one type with one outcome; `first` and `last` as they are written."""

    type: str
    outcome: str
    count: int
    first: str
    last: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Concern:
    """Something that a person should know: how many files it concerns, and a few of them."""

    what: str
    files: int
    samples: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of the AIP; all but `path` and `size_bytes` as the METS says, if it says anything."""

    path: str
    size_bytes: int | None
    use: str = ""
    identifier: str = ""
    original_name: str = ""
    format: str = ""
    puid: str = ""
    derived_from: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """Metadata of what is at `path` (empty: of the package): descriptive (`section` is `dmdSec`) or of its source
    (`sourceMD`). What is said stands in `pairs`; or it is an XML document with the root element `xml`, or in the file
    at `reference`. `status` is METS' own: `original-superseded`, for instance, of what a reingest replaced.
    """

    path: str
    kind: str
    pairs: Sequence[tuple[str, str]]
    section: str = "dmdSec"
    status: str = ""
    xml: str = ""
    reference: str = ""

    @property
    def title(self) -> str:
        what = "Source metadata" if self.section == "sourceMD" else "Description"
        return f"{what} ({self.kind})" + (f", {self.status}" if self.status not in ("", "original") else "")

    @property
    def rows(self) -> Sequence[tuple[str, str]]:
        """What is said, as names and values to be shown."""
        elsewhere = (("XML", f"<{self.xml}>" if self.xml else ""), ("File", self.reference))
        return [*self.pairs, *((name, value) for name, value in elsewhere if value)]


@dataclass(frozen=True, kw_only=True, slots=True)
class RightsCount:
    """Equal rights statements: their basis, what it rests on, the acts that are granted or restricted, and of how many
    files they are; of the package as a whole, `whole`, they are one.
    """

    basis: str
    grounds: str
    acts: Sequence[str]
    whole: bool
    files: int

    @property
    def about(self) -> str:
        return "the whole package" if self.whole else f"{self.files} file{'s' * (self.files != 1)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is in an AIP. `files` counts those that the METS names, `members` all that are there, `described` and
    `sourced` what has descriptive and source metadata.

    `tree` has the first files in the order of their paths; `not_shown` counts the rest.
    """

    name: str
    identifier: str
    form: str
    package_bytes: int | None
    created_at: str
    mets: str
    members: int
    files: int
    size_bytes: int
    bag_info: Sequence[tuple[str, str]]
    agents: Sequence[Mapping[str, str]]
    by_use: Mapping[str, Counted]
    formats: Sequence[FormatCount]
    events: Sequence[EventCount]
    descriptions: Sequence[Description]
    described: int
    sourced: int
    rights: Sequence[RightsCount]
    concerns: Sequence[Concern]
    troubles: Sequence[Violation]
    notes: Sequence[str]
    tree: Sequence[Entry] = field(default=())
    not_shown: int = 0

    @property
    def acting(self) -> Sequence[tuple[str, str]]:
        """Who acted, and by which programs, each once."""
        people = [agent["name"] for agent in self.agents if agent["identifier_type"] != PROGRAM]
        acted = [agent for agent in self.agents if agent["identifier_type"] == PROGRAM]
        programs = [f"{agent['name']} {agent['version']}".strip() for agent in acted]
        return [(name, "; ".join(dict.fromkeys(said))) for name, said in (("Agents", people), ("Programs", programs))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """How much was looked at: `digests` counts comparisons of a computed with a recorded digest; `pointer` and
    `checksum_files` are the names of the files beside the package that it was held against.
    """

    members: int
    size_bytes: int
    digests: int
    mets_files: int
    events: int
    pointer: str
    checksum_files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Whether an AIP is what it says. `rule` of a finding is the section of the specification that is broken, e.g.
    `rfc8493.3` (BagIt), `premis.1.5.2`, `mets.xsd`; `findings` has the first thousand, `found` counts all.

    `notes` say what was not checked, and why.
    """

    name: str
    identifier: str
    form: str
    valid: bool
    found: int
    findings: Sequence[Violation]
    checked: Checked
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """One file that was copied out. `compared` counts recorded digests that it was held against; `output` is empty
    where it went to an open file.
    """

    path: str
    output: str
    size_bytes: int
    digests: Mapping[str, str]
    compared: int
    findings: Sequence[Violation]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One difference. `path` is where the file is in the second AIP, or was in the first."""

    kind: str
    path: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What is different between two AIPs; `counts` by kind counts all, `changes` has the first thousand."""

    before: str
    after: str
    same: bool
    same_files: int
    counts: Mapping[str, int]
    changes: Sequence[Change]
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """A page that was written: how many files it lists of how many there are, and how many images it shows."""

    output: str
    files: int
    members: int
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A small image as it stands in the AIP. `media_type` by its content."""

    path: str
    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """How often something happened in one stretch of time, e.g. `2026-11` or `2026-11-20T18`."""

    when: str
    count: int
