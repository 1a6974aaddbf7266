"""The published contract as documents: JSON Schemas and AsyncAPI 3, generated from the models.

`schemas/` in the repository holds what `documents` gives for the default settings; a test keeps the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ingestd import __version__
from ingestd.config import Settings
from ingestd.errors import CATALOGUE
from ingestd.messages import (
    CONTENT_TYPE,
    Cancel,
    Event,
    EventType,
    PackageSummary,
    PreservationRequest,
    ProcessingConfig,
    RequestEnvelope,
    Retry,
)
from ingestd.workflow import WorkflowDocument

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "https://ingestd.org/schemas/"


def documents(settings: Settings) -> Mapping[str, str]:
    """Every published document by its file name, as text."""
    made: dict[str, Any] = {
        "request.schema.json": _request(),
        "cancel.schema.json": _schema(Cancel, "cancel", "A command: stop a request"),
        "retry.schema.json": _schema(Retry, "retry", "A command: attempt a request once more"),
        "event.schema.json": _schema(Event, "event", "An event or result that ingestd publishes"),
        "processing.schema.json": _schema(ProcessingConfig, "processing", "Processing options"),
        "workflow.schema.json": _schema(WorkflowDocument, "workflow", "workflow.json"),
        "summary.schema.json": _schema(PackageSummary, "summary", "logs/summary.json of an AIP"),
        "errors.json": _errors(),
        "asyncapi.json": _asyncapi(settings),
    }
    return {name: json.dumps(body, indent=2, ensure_ascii=False) + "\n" for name, body in made.items()}


def _schema(model: type[BaseModel], name: str, title: str) -> dict[str, Any]:
    schema = model.model_json_schema(
        by_alias=True, mode="serialization" if model in {Event, PackageSummary} else "validation"
    )
    return {"$schema": _DIALECT, "$id": f"{_BASE}{name}.schema.json", **schema, "title": title}


def _request() -> dict[str, Any]:
    """A request: the envelope, whose `processing` names only known options."""
    schema = _schema(RequestEnvelope, "request", "A preservation request")
    options = ProcessingConfig.model_json_schema()
    properties = {name: {k: v for k, v in p.items() if k != "default"} for name, p in options["properties"].items()}
    schema["$defs"] |= options.get("$defs", {})
    schema["$defs"][PreservationRequest.__name__]["properties"]["processing"] = {
        "type": "object",
        "description": "Processing options that differ from the defaults.",
        "properties": properties,
        "additionalProperties": False,
    }
    return schema


def _errors() -> dict[str, Any]:
    return {
        code.value: {
            "category": code.category,
            "title": entry.title,
            "responsible": entry.responsible,
            "retry": entry.retry,
            "remediation": entry.remediation,
        }
        for code, entry in CATALOGUE.items()
    }


def _asyncapi(settings: Settings) -> dict[str, Any]:
    names = settings.amqp
    events = [kind for kind in EventType if not kind.terminal or kind is EventType.REQUEST_REJECTED]
    results = [kind for kind in EventType if kind.terminal]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ingestd",
            "version": __version__,
            "description": "Requests and commands in, progress events and results out. CloudEvents 1.0, structured.",
            "license": {"name": "AGPL-3.0-or-later"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "requests": _channel(names.requests, "preservation.request.{tenant}", ["preservationRequest"]),
            "control": _channel(names.control, "", ["cancel", "retry"], kind="fanout"),
            "events": _channel(names.events, "{tenant}.{aggregate}.{event}", [_message_name(k) for k in events]),
            "results": _channel(names.results, "{tenant}.{collection}.{outcome}", [_message_name(k) for k in results]),
        },
        "operations": {
            "takeRequest": {"action": "receive", "channel": {"$ref": "#/channels/requests"}},
            "takeCommand": {"action": "receive", "channel": {"$ref": "#/channels/control"}},
            "tellProgress": {"action": "send", "channel": {"$ref": "#/channels/events"}},
            "tellResult": {"action": "send", "channel": {"$ref": "#/channels/results"}},
        },
        "components": {
            "messages": {
                "preservationRequest": _message("A preservation request", "request.schema.json"),
                "cancel": _message("Stop a request", "cancel.schema.json"),
                "retry": _message("Attempt a request once more", "retry.schema.json"),
                **{_message_name(kind): _message(kind.full, "event.schema.json") for kind in EventType},
            }
        },
    }


def _channel(exchange: str, address: str, messages: list[str], *, kind: str = "topic") -> dict[str, Any]:
    words = [word.strip("{}") for word in address.split(".") if word.startswith("{")]
    return {
        "address": address,
        "parameters": {word: {"description": "[a-z0-9_-]{1,64}"} for word in words},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": kind, "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _message_name(kind: EventType) -> str:
    first, *rest = kind.value.replace(".", "_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _message(title: str, schema: str) -> dict[str, Any]:
    return {"title": title, "contentType": CONTENT_TYPE, "payload": {"$ref": f"./{schema}"}}
