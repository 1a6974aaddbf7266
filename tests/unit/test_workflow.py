from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ingestd.app import load_workflow, workflow_path
from ingestd.config import Settings
from ingestd.errors import Code, SystemFault
from ingestd.messages import ProcessingConfig
from ingestd.workflow import DirectoriesConfig, JobStatus, Workflow, new_link_id

ONE, TWO, CHOICE, FAILING = (new_link_id("test", name) for name in ("one", "two", "choice", "failing"))
OK, FAILED = "Completed successfully", "Failed"


def link(execute: str, then: str | None, **more: Any) -> dict[str, Any]:
    made = {
        "config": {"@manager": "linkTaskManagerDirectories", "execute": execute, "arguments": ""},
        "description": {"en": execute},
        "group": {"en": "Work"},
        "exit_codes": {"0": {"job_status": OK, "link_id": then}},
        "fallback_job_status": FAILED,
        "fallback_link_id": FAILING,
    }
    return {**made, **more}


def choice(option: str, yes: str, no: str) -> dict[str, Any]:
    return {
        "config": {
            "@manager": "linkTaskManagerChoice",
            "config_attr": option,
            "default": True,
            "choices": [{"value": True, "link_id": yes}, {"value": False, "link_id": no}],
        },
        "description": {"en": "Choose"},
        "group": {"en": "Work"},
        "fallback_job_status": FAILED,
        "fallback_link_id": FAILING,
    }


def sound() -> dict[str, Any]:
    return {
        "links": {
            ONE: link("one", CHOICE, start=True),
            CHOICE: choice("normalize", TWO, TWO),
            TWO: link("two", None, end=True),
            FAILING: link("stop", None, end=True, group={"en": "Failed"}, fallback_link_id=None),
        }
    }


def parse(raw: Mapping[str, Any]) -> Workflow:
    return Workflow.parse(raw, handlers={"one", "two", "stop"}, options=list(ProcessingConfig.model_fields))


def rules(raw: Mapping[str, Any]) -> set[tuple[str, str]]:
    with pytest.raises(SystemFault) as caught:
        parse(raw)
    assert caught.value.code is Code.SYSTEM_WORKFLOW_INVALID
    return {(violation.rule, violation.path) for violation in caught.value.violations}


def changed(link_id: str, **more: Any) -> dict[str, Any]:
    raw = sound()
    raw["links"][link_id] |= more
    return raw


def test_a_sound_workflow_is_accepted_with_its_start_and_the_options_it_reads() -> None:
    workflow = parse(sound())

    assert workflow.start == ONE
    assert workflow.options_read() == {"normalize"}
    assert workflow.links[FAILING].fails
    assert not workflow.links[TWO].fails


def test_the_shipped_workflow_is_sound() -> None:
    workflow = load_workflow(Settings())

    begins = {workflow.links[link].execute for link in workflow.links[workflow.start].targets()}
    assert begins == {"receive_transfer", "receive_aip"}


def test_an_exit_that_is_not_listed_falls_back() -> None:
    one = parse(sound()).links[ONE]

    assert (JobStatus.COMPLETED, CHOICE) == (one.exit(0).job_status, one.exit(0).link_id)
    assert (JobStatus.FAILED, FAILING) == (one.exit(7).job_status, one.exit(7).link_id)


def test_a_target_that_does_not_exist_is_named() -> None:
    nowhere = new_link_id("nowhere")

    assert ("target_exists", ONE) in rules(changed(ONE, fallback_link_id=nowhere))


def test_there_is_exactly_one_start() -> None:
    assert ("one_start", "links") in rules(changed(ONE, start=False))
    assert ("one_start", "links") in rules(changed(TWO, start=True))


def test_every_link_reaches_an_end() -> None:
    raw = changed(TWO, end=False, fallback_link_id=None)

    assert {("reaches_end", TWO), ("no_dead_end", TWO)} <= rules(raw)


def test_a_circle_is_found_and_only_its_links_are_named() -> None:
    third = new_link_id("test", "third")
    raw = sound()
    raw["links"][CHOICE] = choice("normalize", TWO, third)
    raw["links"][third] = link("two", CHOICE)

    assert rules(raw) == {("no_circle", CHOICE), ("no_circle", third)}


def test_a_link_that_leads_to_itself_is_a_circle() -> None:
    assert ("no_circle", ONE) in rules(changed(ONE, fallback_link_id=ONE))


def test_no_exit_code_but_zero_is_a_success() -> None:
    worked = {"job_status": OK, "link_id": CHOICE}

    assert rules(changed(ONE, exit_codes={"0": worked, "1": worked})) == {("failure_is_not_success", ONE)}
    assert rules(changed(ONE, fallback_job_status=OK)) == {("failure_is_not_success", ONE)}


def test_a_choice_says_where_both_ways_lead() -> None:
    raw = sound()
    raw["links"][CHOICE]["config"]["choices"].pop()

    assert rules(raw) == {("choice_complete", CHOICE)}


def test_a_step_that_nobody_knows_is_named() -> None:
    raw = sound()
    raw["links"][ONE]["config"]["execute"] = "juggle"

    assert rules(raw) == {("handler_exists", ONE)}


def test_an_option_that_nobody_knows_is_named() -> None:
    raw = sound()
    raw["links"][CHOICE]["config"]["config_attr"] = "normalise"
    raw["links"][ONE]["config"]["arguments"] = "--level %config:zeal%"

    assert rules(raw) == {("option_exists", CHOICE), ("option_exists", ONE)}


@pytest.mark.parametrize("arguments", ["--level", "--level 1 2", "level 1", '--level "1'])
def test_arguments_are_pairs(arguments: str) -> None:
    raw = sound()
    raw["links"][ONE]["config"]["arguments"] = arguments

    assert rules(raw) == {("arguments_paired", ONE)}


def test_every_fault_is_named_at_once() -> None:
    raw = changed(ONE, start=False, fallback_job_status=OK)
    raw["links"][TWO]["config"]["execute"] = "juggle"

    assert {"one_start", "failure_is_not_success", "handler_exists"} == {rule for rule, _ in rules(raw)}


def test_what_has_not_the_form_of_a_workflow_is_refused_with_its_place() -> None:
    assert rules({"links": {"no-uuid": link("one", None)}}) == {("string_pattern_mismatch", "links/no-uuid/[key]")}
    assert ("missing", "links") in rules({})
    assert any(rule == "extra_forbidden" for rule, _ in rules(changed(ONE, colour="red")))


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]"])
def test_a_file_that_is_no_workflow_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "workflow.json"
    path.write_bytes(content)

    with pytest.raises(SystemFault) as caught:
        Workflow.load(path)
    assert caught.value.code is Code.SYSTEM_WORKFLOW_INVALID


def test_arguments_are_read_once_and_values_are_never_parsed_again() -> None:
    config = DirectoriesConfig.model_validate(
        {
            "@manager": "linkTaskManagerDirectories",
            "execute": "x",
            "arguments": '--a %config:word% --b "two words" --c %config:flag%/%config:level%',
        }
    )

    options = config.options({"word": "--b 'x\" $HOME", "flag": True, "level": 3})

    assert {"a": "--b 'x\" $HOME", "b": "two words", "c": "True/3"} == options


def test_the_digest_is_of_what_is_said_not_of_how_it_is_written(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps(sound(), indent=9))
    other.write_text(json.dumps(sound(), sort_keys=True))

    assert Workflow.load(one).digest == Workflow.load(other).digest
    assert Workflow.load(one).digest != parse(changed(ONE, description={"en": "Other"})).digest


def test_the_drawing_has_every_link_and_every_way_to_another() -> None:
    drawing = parse(sound()).graphviz()

    assert drawing.startswith("digraph workflow {")
    assert f'"{ONE}" -> "{CHOICE}" [label="0"];' in drawing
    assert f'"{ONE}" -> "{FAILING}" [label="other", style=dashed];' in drawing
    assert f'"{CHOICE}" -> "{TWO}" [label="normalize=True"];' in drawing
    assert drawing.count("[label=") - drawing.count("->") == 4


def test_quotes_in_a_description_do_not_break_the_drawing() -> None:
    assert r"say \"hi\"" in parse(changed(ONE, description={"en": 'say "hi"'})).graphviz()


def test_the_workflow_in_force_is_the_one_that_is_set(tmp_path: Path) -> None:
    assert workflow_path(Settings(workflow=tmp_path / "own.json")) == tmp_path / "own.json"
    assert workflow_path(Settings()).name == "workflow.json"
