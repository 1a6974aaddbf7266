"""What commands print, and what is made of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.fpr.contracts import ContractError, check_xml, finding, identified_as, read_off
from ingestd.fpr.records import Reading
from ingestd.premis import EventOutcome
from ingestd.tools.run import Run, Stop


def run(stdout: str = "", *, code: int | None = 0, stderr: str = "", stopped: Stop = Stop.NO) -> Run:
    return Run(
        argv=("tool",),
        exit_code=code,
        signal=None,
        stopped=stopped,
        stdout=stdout.encode(),
        stderr_tail=stderr,
        seconds=0,
    )


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("pass", EventOutcome.PASS),
        ("partial pass", EventOutcome.PARTIAL_PASS),
        ("fail", EventOutcome.FAIL),
        ("well…", EventOutcome.FAIL),
        ("Positive", EventOutcome.FAIL),
    ],
)
def test_an_outcome_is_read_from_json_and_from_a_python_dictionary(said: str, outcome: EventOutcome) -> None:
    printed = {"eventOutcomeInformation": said, "eventOutcomeDetailNote": "why", "stdout": None}

    assert finding(json.dumps(printed).encode()).outcome is outcome
    assert finding(repr(printed).encode()).outcome is outcome
    assert finding(json.dumps(printed).encode()).note == "why"


@pytest.mark.parametrize("printed", [b"", b"[]", b"{}", b"pass", b"{" * 5000, b"\xff\xfe", b"{" + b" " * 2**21 + b"}"])
def test_what_is_no_outcome_is_said_so(printed: bytes) -> None:
    with pytest.raises(ContractError):
        finding(printed)


@given(st.binary(max_size=300))
def test_no_print_does_more_than_be_refused(printed: bytes) -> None:
    try:
        finding(printed)
    except ContractError:
        return


def test_an_exit_code_says_the_outcome() -> None:
    reading = Reading(pass_codes=(0,), partial_codes=(3,))

    outcomes = [read_off(reading, run(code=code, stderr="bad")).outcome for code in (0, 3, 2)]

    assert outcomes == [EventOutcome.PASS, EventOutcome.PARTIAL_PASS, EventOutcome.FAIL]


def test_a_pattern_says_the_outcome_and_what_goes_into_the_note() -> None:
    reading = Reading(pass_pattern="^ok$", fail_pattern="^bad$", note_pattern="^why: (.*)$")

    found = read_off(reading, run("bad\nwhy: one\nwhy: two\nwhy: one\n"))

    assert (found.outcome, found.note) == (EventOutcome.FAIL, "one; two")
    assert read_off(reading, run("ok\nwhy: nothing\n")).note == ""


def test_the_worst_of_several_outcomes_holds_and_a_note_in_xml_is_what_it_spells() -> None:
    reading = Reading(pass_pattern='ok="true"', fail_pattern='ok="false"', note_pattern="<why>([^<]*)</why>")

    found = read_off(reading, run('<a><b ok="true"/><b ok="false"><why>not &lt;so&gt;</why></b></a>'))

    assert (EventOutcome.FAIL, "not <so>") == (found.outcome, found.note)


def test_a_program_that_crashed_has_no_outcome() -> None:
    reading = Reading(pass_pattern="^ok$", fail_pattern="^bad$")

    with pytest.raises(ContractError):
        read_off(reading, run("Exception in thread main", code=1))
    with pytest.raises(ContractError):
        read_off(Reading(), run(code=None))
    with pytest.raises(ContractError):
        read_off(Reading(), run(code=0, stopped=Stop.WALL))


def test_a_note_is_kept_short() -> None:
    found = read_off(Reading(), run("\n".join(f"line {number}" for number in range(100)), code=1))

    assert found.note.endswith("line 19; and 80 more")


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"<a>",
        b"<a/><b/>",
        b"no xml",
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    ],
)
def test_what_is_not_plain_well_formed_xml_is_refused(printed: bytes) -> None:
    with pytest.raises(ContractError):
        check_xml(printed)


def test_well_formed_xml_is_taken() -> None:
    check_xml('<?xml version="1.0" encoding="UTF-8"?><a>é</a>'.encode())


def test_an_identification_is_one_line() -> None:
    assert identified_as(b"fmt/43\nmore\n") == "fmt/43"
    assert identified_as(b"  \n") == ""
