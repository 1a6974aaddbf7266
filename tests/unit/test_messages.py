from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import Code, ContentError, IngestError, RequestError, ToolError, ToolFailure, Violation
from ingestd.messages import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    CompressionAlgorithm,
    ErrorData,
    Event,
    EventData,
    EventType,
    Outcome,
    ProcessingConfig,
    RequestEnvelope,
    RequestState,
    WarningData,
    parse_request,
    read_context,
    read_request,
    routing_word,
)
from ingestd.messages.values import shortened

BARE: dict[str, Any] = {"source": {"location": "/x"}}


def bare(**more: Any) -> bytes:
    return json.dumps({**BARE, **more}).encode()


def envelope(**more: Any) -> RequestEnvelope:
    return read_request(bare(**more), message_id="m")


def event(kind: EventType = EventType.REQUEST_STARTED, **more: Any) -> Event:
    fields: dict[str, Any] = {"request_id": "r", "sequence": 1, "state": RequestState.RUNNING}
    return Event(type=kind.full, subject="r", data=EventData(**{**fields, **more}))


# --- requests


def test_bare_data_is_a_request_known_by_its_message() -> None:
    request = envelope()

    assert ("m", "urn:ingestd:bare", "/x") == (request.id, request.source, request.data.source.location)


def test_bare_data_without_a_message_id_is_known_by_its_content() -> None:
    assert read_request(bare()).id == read_request(bare()).id
    assert read_request(bare()).id != read_request(bare(name="other")).id


def test_keys_that_nobody_knows_are_ignored_but_not_among_the_options() -> None:
    body = {"specversion": "1.0", "id": "1", "source": "me", "colour": "red", "data": {**BARE, "later": [1]}}

    request = read_request(json.dumps(body).encode())

    assert request.id == "1"
    with pytest.raises(RequestError) as caught:
        ProcessingConfig.resolve({"normalise": False, "transcribe_file": True})
    assert caught.value.code is Code.REQUEST_UNKNOWN_OPTION
    assert [
        ("processing.normalise", "did you mean normalize?"),
        ("processing.transcribe_file", "did you mean transcribe_files?"),
    ] == [(violation.path, violation.expected) for violation in caught.value.violations]


def test_an_option_like_none_of_ours_is_answered_with_all_of_them() -> None:
    with pytest.raises(RequestError) as caught:
        ProcessingConfig.resolve({"zzzz": 1})

    assert all(name in caught.value.violations[0].expected for name in ProcessingConfig.model_fields)


def test_a_known_option_with_a_wrong_value_is_not_an_unknown_one() -> None:
    with pytest.raises(RequestError) as caught:
        ProcessingConfig.resolve({"normalize": "perhaps", "zzzz": 1})

    assert caught.value.code is Code.REQUEST_SCHEMA_INVALID
    assert {v.path for v in caught.value.violations} == {"processing.normalize", "processing.zzzz"}


def test_options_are_laid_over_one_another() -> None:
    options = ProcessingConfig.resolve({"normalize": False, "aip_compression_level": 3}, {"normalize": "true"})

    assert (True, 3) == (options.normalize, options.aip_compression_level)


@pytest.mark.parametrize("spelling", ["s7_lzma", "S7_LZMA", 7])
def test_the_algorithm_may_be_spelled_as_a3m_does(spelling: str | int) -> None:
    assert ProcessingConfig.resolve({"aip_compression_algorithm": spelling}).aip_compression_algorithm == (
        CompressionAlgorithm.S7_LZMA
    )


@pytest.mark.parametrize("level", [0, 10, "high"])
def test_a_level_out_of_range_is_refused(level: object) -> None:
    with pytest.raises(RequestError, match="aip_compression_level"):
        ProcessingConfig.resolve({"aip_compression_level": level})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"source": "/x"}',
        b'{"source": {"location": ""}}',
        b'{"specversion": "2.0", "id": "1", "source": "me", "data": {"source": {"location": "/x"}}}',
        b'{"specversion": "1.0", "id": "", "source": "me", "data": {"source": {"location": "/x"}}}',
        b'{"data": null}',
        b'{"source": {"location": "/x"}, "deadline_seconds": 0}',
        b'{"source": {"location": "/x"}, "deadline_seconds": Infinity}',
        b'{"source": {"location": "/x"}, "deadline_seconds": NaN}',
        b'{"source": {"location": "/x"}, "client_context": {"a": NaN}}',
        b'{"source": {"location": "/x"}, "client_context": {"a": "\\ud800"}}',
        b'{"source": {"location": "/x"}, "client_context": {"\\ud800": 1}}',
        b'{"source": {"location": "/x"}, "processing": {"a": "\\ud800"}}',
        b'{"source": {"location": "/x"}, "metadata": {"dc": {"title": "\\udc80"}}}',
        b'{"source": {"location": "/x"}, "metadata": {"dc": {"ti tle": "x"}}}',
        b'{"source": {"location": "/x"}, "client_context": {"a": "' + b"x" * 5000 + b'"}}',
        b'{"source": {"location": "/x"}, "n": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(body)

    assert caught.value.detail


@pytest.mark.parametrize("name", ["a/b", "..", ".", " a", "a\n", "a\x7f", "", "x" * 201, "\ud800"])
def test_a_name_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(RequestError):
        parse_request({"id": "1", "source": "me", "data": {**BARE, "name": name}})


def test_every_violation_is_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        read_request(b'{"source": {}, "priority": "soon", "tenant": ""}')

    assert {"data.source.location", "data.priority", "data.tenant"} == {v.path for v in caught.value.violations}


def test_what_is_too_large_is_not_even_read() -> None:
    with pytest.raises(RequestError, match=str(MAX_BODY_BYTES)):
        read_request(b" " * (MAX_BODY_BYTES + 1))


@pytest.mark.parametrize("depth", [MAX_DEPTH, 200, 300, 900, 985, 990, 995, 5000, 30000])
@pytest.mark.parametrize("key", ["client_context", "processing", "metadata", "nobody_knows"])
def test_a_nesting_bomb_is_refused_at_every_depth(key: str, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth

    with pytest.raises(RequestError):
        read_request(b'{"source": {"location": "/x"}, "%s": {"a": %s}}' % (key.encode(), nested))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_request_that_is_taken_comes_back_from_the_journal_and_in_its_events(context: Any) -> None:
    try:
        taken = read_request(bare(client_context={"a": context}, processing={"b": context}))
    except RequestError:
        return

    assert taken == RequestEnvelope.model_validate_json(taken.model_dump_json())
    assert taken.data.package_id().version == 5
    told = event(client_context=taken.data.client_context)
    assert told.model_dump_json() == Event.model_validate_json(told.model_dump_json()).model_dump_json()


def test_the_context_of_a_refused_request_comes_back_unless_it_is_what_is_wrong() -> None:
    assert read_context({"a": [1]}) == {"a": [1]}
    wrongs: list[Any] = [None, [], {"a": float("nan")}, {"a": "\ud800"}, {"a": "x" * 5000}]
    for wrong in wrongs:
        assert read_context(wrong) == {}


# --- idempotency


def test_the_same_request_makes_the_same_aip_and_another_another() -> None:
    same = envelope().data.package_id()

    assert same == envelope(priority="high", client_context={"n": 1}).data.package_id()
    for other in (
        {"name": "n"},
        {"processing": {"normalize": False}},
        {"collection": "c"},
        {"accession": "a"},
        {"target": {"location": "t"}},
        {"metadata": {"dc": {"title": "t"}}},
        {"source": {"location": "/y"}},
        {"tenant": "t"},
        {"idempotency_key": "k"},
    ):
        assert same != envelope(**other).data.package_id(), other


def test_the_same_key_makes_the_same_aip_whatever_is_asked_for_and_the_digest_tells_them_apart() -> None:
    one, other = envelope(idempotency_key="k").data, envelope(idempotency_key="k", name="n").data

    assert one.package_id() == other.package_id()
    assert one.content_digest() != other.content_digest()


def test_credentials_do_not_change_what_is_asked_for() -> None:
    with_credentials = envelope(source={"location": "/x", "credentials": "c"}).data

    assert envelope().data.content_digest() == with_credentials.content_digest()


# --- events


@pytest.mark.parametrize("letter", ["x", "é", "\n", "\udc80"])
def test_an_error_leaves_room_for_the_rest_of_its_event_and_says_what_it_leaves_out(letter: str) -> None:
    long = Violation(path=letter * 3000, rule="r", expected=letter * 900, actual=letter * 900)
    data = ErrorData.of(ContentError("no", violations=(long,) * 300))

    assert 1 <= len(data.violations) < 100
    assert 300 == len(data.violations) + data.violations_left_out
    assert len(data.model_dump_json().encode()) < 40 * 1024


def test_what_is_wrong_in_few_words_is_all_listed() -> None:
    data = ErrorData.of(ContentError("no", violations=(Violation(path="a/b", rule="r"),) * 100))

    assert (100, 0) == (len(data.violations), data.violations_left_out)


@given(st.text())
def test_any_text_makes_one_word_of_a_routing_key(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,64}", routing_word(text))


def test_a_result_is_routed_by_tenant_collection_and_outcome_and_an_event_by_what_happened() -> None:
    result = event(EventType.AIP_STORED, outcome=Outcome.SUCCEEDED, tenant="The Mint", collection="Letters.1")

    assert result.routing_key() == "the-mint.letters-1.succeeded"
    assert event(EventType.LINK_STARTED, tenant="#").routing_key() == "default.link.started"


def test_a_published_event_comes_back_as_it_was() -> None:
    told = event(
        EventType.REQUEST_FAILED,
        package_id=uuid.uuid4(),
        outcome=Outcome.FAILED,
        error=ErrorData.of(ContentError("no")),
        warnings=[WarningData(code="c", count=2, samples=["x"])],
    )

    assert told.model_dump_json() == Event.model_validate_json(told.model_dump_json()).model_dump_json()
    assert json.loads(told.model_dump_json())["time"].endswith("Z")


@pytest.mark.parametrize("kind", EventType)
def test_the_kind_of_an_event_is_read_from_its_type(kind: EventType) -> None:
    assert kind is event(kind).kind


def test_states_that_are_outcomes_are_terminal_and_no_others() -> None:
    assert {state.value for state in RequestState if state.terminal} == {outcome.value for outcome in Outcome}


def test_an_error_comes_back_as_it_was() -> None:
    error = ToolError(
        "the program failed",
        code=Code.TOOL_TIMEOUT,
        violations=(Violation(path="objects/a", rule="r", expected="e", actual="a"),),
        remediation="Do.",
        tool=ToolFailure(name="7z", version="26", exit_code=2, signal=9, timed_out=True),
        stderr_tail="tail",
    )

    back = ErrorData.model_validate_json(ErrorData.of(error, "Pack").model_dump_json()).error()

    assert isinstance(back, IngestError)
    for field in ("code", "detail", "violations", "remediation", "tool", "stderr_tail"):
        assert getattr(error, field) == getattr(back, field), field


def test_bytes_of_a_name_that_are_not_utf_8_do_not_break_an_event() -> None:
    error = ContentError(
        "caf\udce9", violations=(Violation(path="\udcff", rule="r", actual="\udcfe"),), stderr_tail="\udcfd"
    )
    data = ErrorData.of(error)

    assert ("caf%E9", "%FF", "%FE", "%FD") == (
        data.detail,
        data.violations[0].path,
        data.violations[0].actual,
        data.stderr_tail,
    )
    assert WarningData(code="c", count=1, samples=["\udce9"]).samples == ["%E9"]


def test_an_error_with_very_much_to_say_is_cut() -> None:
    violations = tuple(Violation(path="p" * 9000, rule="r", actual="a" * 9000) for _ in range(1000))
    data = ErrorData.of(ContentError("d" * 9000, violations=violations, stderr_tail="x" * 9000 + "end"))

    assert (2000, 1000) == (len(data.detail), len(data.violations) + data.violations_left_out)
    assert data.stderr_tail.endswith("end")
    assert len(data.model_dump_json()) < 40 * 1024


@pytest.mark.parametrize(
    ("given", "meant"),
    [(True, True), ("true", True), (False, False), ("no", False), ("without_defaults", "without_defaults")],
)
def test_thumbnails_are_wanted_or_not_or_without_default_icons(given: object, meant: object) -> None:
    assert ProcessingConfig.resolve({"generate_thumbnails": given}).generate_thumbnails == meant


def test_another_word_for_thumbnails_is_refused() -> None:
    with pytest.raises(RequestError):
        ProcessingConfig.resolve({"generate_thumbnails": "some"})


def test_a_name_that_dublin_core_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError) as refused:
        envelope(metadata={"dc": {"title": "T", "isPartOf": "F", "tilte": "x"}})

    [violation] = refused.value.violations
    assert (violation.actual, violation.expected) == ('"tilte"', "a name of Dublin Core: did you mean title?")


def test_what_was_expected_is_said_without_the_words_of_a_library() -> None:
    with pytest.raises(RequestError) as refused:
        ProcessingConfig.resolve({"aip_compression_level": 10})

    assert refused.value.violations[0].expected == "less than or equal to 9"


def test_a_text_that_is_too_long_ends_after_a_whole_word() -> None:
    names = [f"name_{number}" for number in range(100)]
    told = shortened(f"one of {', '.join(names)}", 500)

    assert len(told) <= 500
    assert told.endswith(" …")
    assert set(told.removeprefix("one of ").removesuffix(" …").split(", ")) <= set(names)
    assert ("short", 500) == (shortened("short", 500), len(shortened("x" * 900, 500)))
