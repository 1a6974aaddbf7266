from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ingestd.app import open_ingest
from ingestd.config import Settings
from ingestd.errors import Code
from ingestd.messages import EventType, Outcome, ProcessingConfig
from ingestd.schemas import documents
from tests.conftest import REPOSITORY

DOCUMENTS = documents(Settings())


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(DOCUMENTS[f"{name}.schema.json"]))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_published_is_what_the_models_say(name: str) -> None:
    """If this fails: `python -m ingestd schemas schemas` writes them anew."""
    assert DOCUMENTS[name] == (REPOSITORY / "schemas" / name).read_text(encoding="utf-8")


def test_nothing_else_is_published() -> None:
    assert set(DOCUMENTS) == {path.name for path in (REPOSITORY / "schemas").iterdir()}


@pytest.mark.parametrize("name", ["request", "event", "processing", "workflow"])
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(DOCUMENTS[f"{name}.schema.json"]))


def test_the_shipped_workflow_is_valid() -> None:
    validator("workflow").validate(json.loads((REPOSITORY / "workflow.json").read_text()))


def request(**more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "me", "data": {"source": {"location": "/x"}, **more}}


def test_a_request_names_only_known_options() -> None:
    validator("request").validate(request(processing={"normalize": False, "aip_compression_level": 3}))
    for wrong in ({"normalise": False}, {"aip_compression_level": 10}, {"aip_compression_algorithm": "rar"}):
        with pytest.raises(ValidationError):
            validator("request").validate(request(processing=wrong))


def test_a_request_without_a_location_is_not_valid() -> None:
    with pytest.raises(ValidationError):
        validator("request").validate({**request(), "data": {}})


def test_every_code_is_published() -> None:
    assert {code.value for code in Code} == set(json.loads(DOCUMENTS["errors.json"]))


def test_every_option_is_described() -> None:
    schema = json.loads(DOCUMENTS["processing.schema.json"])

    assert set(schema["properties"]) == set(ProcessingConfig.model_fields)
    for option in schema["properties"].values():
        referred = schema["$defs"].get(option.get("$ref", "").removeprefix("#/$defs/"), {})
        assert option.get("description") or referred.get("description")


def refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [value for key, value in node.items() if key == "$ref"] + [r for v in node.values() for r in refs(v)]
    return [r for item in node for r in refs(item)] if isinstance(node, list) else []


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads(DOCUMENTS["asyncapi.json"])
    found = refs(document)

    assert found
    for ref in found:
        if ref.startswith("#/"):
            node = document
            for part in ref[2:].split("/"):
                node = node[part]
        else:
            assert ref.removeprefix("./") in DOCUMENTS


def test_every_event_has_its_message_in_a_channel() -> None:
    document = json.loads(DOCUMENTS["asyncapi.json"])
    titles = {message["title"] for message in document["components"]["messages"].values()}
    in_channels = {name for channel in document["channels"].values() for name in channel["messages"]}

    assert {kind.full for kind in EventType} <= titles
    assert set(document["components"]["messages"]) == in_channels


@pytest.mark.tool
async def test_every_event_of_a_real_run_is_valid_and_in_sequence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a b.txt").write_text("hello")
    settings = Settings(data_dir=tmp_path / "data")
    async with open_ingest(settings) as ingest:
        preservation = await ingest.begin(source, processing={"aip_compression_algorithm": "tar"})
        events = [event async for event in preservation]
        result = await preservation

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}
    published = [event for event in events if event.data.sequence]
    assert list(range(1, len(published) + 1)) == [event.data.sequence for event in published]
    assert [event for event in events if event.kind.terminal] == events[-1:]
    started = [event.data.link.id for event in events if event.kind is EventType.LINK_STARTED and event.data.link]
    assert len(set(started)) == len(started)
    check = validator("event")
    for event in events:
        check.validate(json.loads(event.model_dump_json()))
    before_the_end = "".join(event.model_dump_json() for event in events[:-1])
    assert str(tmp_path / "data" / "work") not in before_the_end
    assert result.work_folder is None
