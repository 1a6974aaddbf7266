"""What commands print, and how it is read: validation outcomes, XML, identifications."""

from __future__ import annotations

import ast
import html
import json
import re
from dataclasses import dataclass
from xml.parsers import expat

from ingestd.fpr.records import Reading
from ingestd.premis import EventOutcome
from ingestd.tools.run import Run

_MOST_BYTES = 1024 * 1024
_MOST_NOTES = 20
_NOT_RUN = 126
"""Exit codes from here on are those of a shell, or of `env`, whose program cannot be run or was killed."""
_WORST_FIRST = (EventOutcome.FAIL, EventOutcome.PARTIAL_PASS, EventOutcome.PASS)
_OUTCOMES: dict[str, EventOutcome] = {outcome.value: outcome for outcome in _WORST_FIRST}


class ContractError(ValueError):
    """A command printed what its usage does not allow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a validation or a policy check found: eventOutcome, eventOutcomeDetailNote, and a report to be kept."""

    outcome: EventOutcome
    note: str = ""
    report: str = ""
    policy: str = ""


def finding(stdout: bytes) -> Finding:
    """Read the outcome that a validation command printed: one JSON object, or a Python dictionary as older scripts do.

    `eventOutcomeInformation` is `pass`, `partial pass`, and anything else is `fail`; `eventOutcomeDetailNote` and
    `stdout` are texts. Raises `ContractError`.
    """
    said = _mapping(stdout)
    if "eventOutcomeInformation" not in said:
        raise ContractError("no eventOutcomeInformation was printed")
    return Finding(
        outcome=_OUTCOMES.get(_text(said["eventOutcomeInformation"]), EventOutcome.FAIL),
        note=_text(said.get("eventOutcomeDetailNote")),
        report=_text(said.get("stdout")),
        policy=_text(said.get("policyFileName") or said.get("policy")),
    )


def read_off(reading: Reading, run: Run) -> Finding:
    """Read the outcome off a program's exit code and print. Raises `ContractError` where the run has none."""
    printed = run.stdout[:_MOST_BYTES].decode("utf-8", errors="replace")
    if run.stopped or run.exit_code is None:
        raise ContractError("the program did not come to its end")
    said = f"{printed}\n{run.stderr_tail}"
    outcome = _outcome(reading, run.exit_code, said)
    note = "" if outcome is EventOutcome.PASS else _note(reading, said)
    return Finding(outcome=outcome, note=note, report=printed)


def _outcome(reading: Reading, code: int, said: str) -> EventOutcome:
    patterns = (reading.fail_pattern, reading.partial_pattern, reading.pass_pattern)
    if any(patterns):
        for pattern, outcome in zip(patterns, _WORST_FIRST, strict=True):
            if pattern and re.search(pattern, said, re.MULTILINE):
                return outcome
        raise ContractError(f"exit code {code}, and no outcome in what was printed")
    if code in reading.pass_codes:
        return EventOutcome.PASS
    if code >= _NOT_RUN and code not in reading.partial_codes:
        raise ContractError(f"exit code {code} says that the program did not come to its end")
    return EventOutcome.PARTIAL_PASS if code in reading.partial_codes else EventOutcome.FAIL


def _note(reading: Reading, said: str) -> str:
    if reading.note_pattern:
        lines = [match[1].strip() for match in re.finditer(reading.note_pattern, said, re.MULTILINE)]
        if said.lstrip().startswith("<"):
            lines = [html.unescape(line) for line in lines]
    else:
        lines = [line.strip() for line in said.splitlines()]
    kept = list(dict.fromkeys(line for line in lines if line))
    more = f"; and {len(kept) - _MOST_NOTES} more" if len(kept) > _MOST_NOTES else ""
    return "; ".join(kept[:_MOST_NOTES]) + more


def _mapping(stdout: bytes) -> dict[object, object]:
    if len(stdout) > _MOST_BYTES:
        raise ContractError(f"{len(stdout)} bytes were printed where an outcome was expected")
    text = stdout.decode("utf-8", errors="replace").strip()
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = _literal(text)
    if not isinstance(said, dict):
        raise ContractError("what was printed is not an outcome")
    return said


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ContractError("what was printed is neither JSON nor a Python dictionary") from error


def _text(value: object) -> str:
    if value is None:
        return ""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said.encode("utf-8", "replace").decode()  # half a surrogate pair, which JSON can write, is no text


def check_xml(stdout: bytes) -> None:
    """Raise `ContractError` unless `stdout` is one well-formed XML document that declares no entities."""
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ContractError("the XML declares entities")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(stdout, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # an encoding that Python does not know, or refuses
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"not well-formed XML: {error}") from error


def identified_as(stdout: bytes) -> str:
    """Read what an identification command printed: one line, empty where it could not tell."""
    return stdout[:_MOST_BYTES].decode("utf-8", errors="replace").strip().split("\n")[0].strip()
