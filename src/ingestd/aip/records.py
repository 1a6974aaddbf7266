"""What reading an AIP gives, as records; `dataclasses.asdict` makes JSON of them. Paths are relative to the AIP's
folder and escaped (`oais.escape_name`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ingestd.errors import Violation


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
    """Descriptive metadata of what is at `path` (empty: of the package)."""

    path: str
    kind: str
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is in an AIP. `files` counts those that the METS names, `members` all that are there.

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
    concerns: Sequence[Concern]
    troubles: Sequence[Violation]
    notes: Sequence[str]
    tree: Sequence[Entry] = field(default=())
    not_shown: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """How much was looked at: `digests` counts comparisons of a computed with a recorded digest."""

    members: int
    size_bytes: int
    digests: int
    mets_files: int
    events: int
    pointer: str


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
