"""The workflow: links, what each executes, and where each exit code leads.

The format is Archivematica's as a3m reduced it: one object `links`, keyed by UUID. `Workflow.load` proves at once
what would otherwise fail hours into an ingest: every target exists, every `execute` is known, every link reaches
an end, one link starts, and no exit code but 0 is called a success.

Severity is in the data: an exit code that fails its job and goes on to a working link is a warning; one that leads to a
link whose group says "failed" or "reject" (the words Archivematica's tools go by) fails or rejects the package.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import uuid
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingestd.errors import Code, SystemFault, Violation

LinkId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
_LANGUAGE = r"^[a-zA-Z]{2,3}([-_/][a-zA-Z]{2,3})?$"
_CONFIG = re.compile(r"%config:([a-z_]+)%")


class JobStatus(StrEnum):
    """How a job ended."""

    COMPLETED = "Completed successfully"
    FAILED = "Failed"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class Exit(_Model):
    """What one exit code of a job means."""

    job_status: JobStatus
    link_id: LinkId | None = None
    """The next link; none: the end."""


class _Standard(_Model):
    execute: Annotated[str, Field(min_length=1)]
    """The step that runs: a name of `ingestd.handlers.HANDLERS`."""
    arguments: str
    """Options for the step, as `--name value`; `%config:NAME%` stands for a processing option."""
    filter_subdir: str | None = None
    """Only files below this folder, relative to the package's root."""
    filter_file_start: str | None = None
    """Not used; part of the format."""
    filter_file_end: str | None = None
    """Not used; part of the format."""
    stdout_file: str | None = None
    """Not used: steps return facts; part of the format."""
    stderr_file: str | None = None
    """Not used: steps return facts; part of the format."""

    def options(self, processing: Mapping[str, bool | int | str]) -> Mapping[str, str]:
        """Read `arguments`: option name (without dashes) → value. Values never pass through a parser again."""
        words = [_CONFIG.sub(lambda match: str(processing[match[1]]), word) for word in shlex.split(self.arguments)]
        names = [word.removeprefix("--") for word in words[::2]]
        return dict(zip(names, words[1::2], strict=True))


class FilesConfig(_Standard):
    """A step that works on files, window by window."""

    manager: Literal["linkTaskManagerFiles"] = Field(alias="@manager")


class DirectoriesConfig(_Standard):
    """A step that works on the package as a whole."""

    manager: Literal["linkTaskManagerDirectories"] = Field(alias="@manager")


class Choice(_Model):
    value: bool
    link_id: LinkId


class ChoiceConfig(_Model):
    """A branch on a processing option."""

    manager: Literal["linkTaskManagerChoice"] = Field(alias="@manager")
    config_attr: Annotated[str, Field(min_length=1)]
    """The processing option."""
    default: bool
    """Its value where the request does not say."""
    choices: Annotated[tuple[Choice, ...], Field(min_length=1)]


Config = Annotated[FilesConfig | DirectoriesConfig | ChoiceConfig, Field(discriminator="manager")]
Translations = Annotated[
    dict[Annotated[str, Field(pattern=_LANGUAGE)], str],
    Field(min_length=1, json_schema_extra={"required": ["en"]}),
]


class Link(_Model):
    """One step of the workflow and what follows it."""

    config: Config
    description: Translations
    """The job's name, by language; `en` is required."""
    group: Translations
    """The group of links it belongs to, by language; `en` is required."""
    fallback_job_status: JobStatus
    """How the job ended when its exit code is not listed."""
    fallback_link_id: LinkId | None = None
    """The next link when the exit code is not listed; none: the end."""
    exit_codes: Annotated[dict[str, Exit], Field(min_length=1)] = Field(
        default_factory=lambda: {"0": Exit(job_status=JobStatus.COMPLETED)}
    )
    start: bool = False
    """Exactly one link starts."""
    end: bool = False
    """Here the package is released."""

    @property
    def name(self) -> str:
        return self.description["en"]

    @property
    def group_name(self) -> str:
        return self.group["en"]

    @property
    def execute(self) -> str:
        return "choice" if isinstance(self.config, ChoiceConfig) else self.config.execute

    @property
    def fails(self) -> bool:
        """On the branch that fails or rejects the package."""
        return any(word in self.group_name.lower() for word in ("failed", "reject"))

    def exit(self, code: int) -> Exit:
        """Say how the job ended and which link is next."""
        fallback = Exit(job_status=self.fallback_job_status, link_id=self.fallback_link_id)
        return self.exit_codes.get(str(code), fallback)

    def targets(self) -> set[str]:
        if isinstance(self.config, ChoiceConfig):
            return {choice.link_id for choice in self.config.choices}
        nexts = {exit_.link_id for exit_ in self.exit_codes.values()} | {self.fallback_link_id}
        return {link for link in nexts if link is not None}


class WorkflowDocument(_Model):
    """The file `workflow.json`."""

    links: Annotated[dict[LinkId, Link], Field(min_length=1)]


class Workflow:
    """A workflow that was proved sound. Links by id, in the order of the file."""

    def __init__(self, document: WorkflowDocument, digest: str) -> None:
        self.links: Mapping[str, Link] = document.links
        self.digest = digest
        """SHA-256 of the document in canonical JSON: named in every event and in PREMIS."""
        self.start = next(id_ for id_, link in document.links.items() if link.start)

    @classmethod
    def load(
        cls, path: Path, *, handlers: Collection[str] | None = None, options: Collection[str] | None = None
    ) -> Workflow:
        """Read and prove a workflow. `handlers` and `options` are the names it may use.

        Raises `SystemFault` (`system.workflow_invalid`) with every fault found.
        """
        try:
            raw = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise _invalid(f"cannot read the workflow {path.name}: {error}", ()) from error
        return cls.parse(raw, handlers=handlers, options=options)

    @classmethod
    def parse(
        cls, raw: Any, *, handlers: Collection[str] | None = None, options: Collection[str] | None = None
    ) -> Workflow:
        try:
            document = WorkflowDocument.model_validate(raw)
        except ValidationError as error:
            faults = tuple(
                Violation(path="/".join(map(str, item["loc"])), rule=item["type"], expected=item["msg"])
                for item in error.errors(include_input=False)
            )
            raise _invalid("the workflow does not have the form of one", faults) from error
        faults = tuple(_prove(document.links, handlers, options))
        if faults:
            raise _invalid(f"the workflow has {len(faults)} fault(s)", faults)
        canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return cls(document, hashlib.sha256(canonical.encode()).hexdigest())

    def options_read(self) -> frozenset[str]:
        """Name the processing options on which some link depends."""
        read: set[str] = set()
        for link in self.links.values():
            if isinstance(link.config, ChoiceConfig):
                read.add(link.config.config_attr)
            else:
                read.update(_CONFIG.findall(link.config.arguments))
        return frozenset(read)

    def graphviz(self) -> str:
        """Draw the workflow in the DOT language, failing exits dashed."""
        lines = ["digraph workflow {", '  node [shape=box, style=rounded, fontname="sans-serif"];']
        for id_, link in self.links.items():
            shape = ", shape=diamond" if isinstance(link.config, ChoiceConfig) else ""
            colour = ', color="#b00020"' if link.fails else ""
            label = json.dumps(f"{link.name}\n{link.execute}", ensure_ascii=False)
            lines.append(f'  "{id_}" [label={label}{shape}{colour}];')
            lines.extend(_edges(id_, link))
        return "\n".join([*lines, "}"]) + "\n"


def new_link_id(execute: str, use: str = "") -> str:
    """Make a stable identifier for a new link of this project's workflow (UUID v5 of what it does)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://ingestd.org/workflow/{execute}/{use}"))


def _edges(id_: str, link: Link) -> list[str]:
    if isinstance(link.config, ChoiceConfig):
        name = link.config.config_attr
        return [f'  "{id_}" -> "{c.link_id}" [label="{name}={c.value}"];' for c in link.config.choices]
    lines = [
        f'  "{id_}" -> "{exit_.link_id}" [label="{code}"];' for code, exit_ in link.exit_codes.items() if exit_.link_id
    ]
    if link.fallback_link_id:
        lines.append(f'  "{id_}" -> "{link.fallback_link_id}" [label="other", style=dashed];')
    return lines


def _invalid(detail: str, faults: tuple[Violation, ...]) -> SystemFault:
    return SystemFault(detail, code=Code.SYSTEM_WORKFLOW_INVALID, violations=faults)


def _prove(
    links: Mapping[str, Link], handlers: Collection[str] | None, options: Collection[str] | None
) -> list[Violation]:
    faults = [*_starts(links), *_unreachable_ends(links), *_circles(links)]
    for id_, link in links.items():
        faults += [
            Violation(path=id_, rule="target_exists", expected="a link of this workflow", actual=target)
            for target in sorted(link.targets() - links.keys())
        ]
        faults += _exits(id_, link)
        faults += _names(id_, link, handlers, options)
    return faults


def _starts(links: Mapping[str, Link]) -> list[Violation]:
    starts = [id_ for id_, link in links.items() if link.start]
    if len(starts) == 1:
        return []
    return [Violation(path="links", rule="one_start", expected="one link with start", actual=str(len(starts)))]


def _exits(id_: str, link: Link) -> list[Violation]:
    faults = []
    if isinstance(link.config, ChoiceConfig):
        values = {choice.value for choice in link.config.choices}
        if values != {True, False}:
            faults.append(Violation(path=id_, rule="choice_complete", expected="a link for true and one for false"))
        return faults
    wrong = [c for c, e in link.exit_codes.items() if c != "0" and e.job_status is JobStatus.COMPLETED]
    if link.fallback_job_status is JobStatus.COMPLETED:
        wrong.append("fallback")
    faults += [
        Violation(path=id_, rule="failure_is_not_success", expected=JobStatus.FAILED, actual=f"exit {code}")
        for code in wrong
    ]
    dead = [code for code, exit_ in link.exit_codes.items() if exit_.link_id is None and not link.end]
    if link.fallback_link_id is None and not link.end:
        dead.append("fallback")
    faults += [
        Violation(path=id_, rule="no_dead_end", expected="a next link, or end", actual=f"exit {code}") for code in dead
    ]
    return faults


def _names(id_: str, link: Link, handlers: Collection[str] | None, options: Collection[str] | None) -> list[Violation]:
    faults = []
    config = link.config
    if isinstance(config, ChoiceConfig):
        used = [config.config_attr]
    else:
        used = _CONFIG.findall(config.arguments)
        if handlers is not None and config.execute not in handlers:
            faults.append(Violation(path=id_, rule="handler_exists", expected="a known step", actual=config.execute))
        if not _paired(config.arguments):
            faults.append(
                Violation(path=id_, rule="arguments_paired", expected="--name value", actual=config.arguments)
            )
    if options is not None:
        faults += [
            Violation(path=id_, rule="option_exists", expected="a processing option", actual=name)
            for name in used
            if name not in options
        ]
    return faults


def _paired(arguments: str) -> bool:
    try:
        words = shlex.split(arguments)
    except ValueError:
        return False
    return len(words) % 2 == 0 and all(word.startswith("--") for word in words[::2])


def _circles(links: Mapping[str, Link]) -> list[Violation]:
    """What is left of the links once those that lead nowhere, or that nothing leads to, are taken away."""
    rest = dict(links)
    while rest:
        led_to = {target for link in rest.values() for target in link.targets()}
        done = [id_ for id_, link in rest.items() if id_ not in led_to or not link.targets() & rest.keys()]
        if not done:
            break
        for id_ in done:
            del rest[id_]
    return [
        Violation(path=id_, rule="no_circle", expected="links that only go forward", actual=link.name)
        for id_, link in rest.items()
    ]


def _unreachable_ends(links: Mapping[str, Link]) -> list[Violation]:
    reaching = {id_ for id_, link in links.items() if link.end}
    grew = True
    while grew:
        more = {id_ for id_, link in links.items() if id_ not in reaching and link.targets() & reaching}
        reaching |= more
        grew = bool(more)
    return [
        Violation(path=id_, rule="reaches_end", expected="a way to a link with end", actual=links[id_].name)
        for id_ in links
        if id_ not in reaching
    ]
