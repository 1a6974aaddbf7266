"""Commands to the workers: `cancel` and `retry`, which never wait behind hours of work."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from ingestd.errors import RequestError
from ingestd.messages.requests import MAX_BODY_BYTES
from ingestd.messages.values import Incoming, Label, Time, validated

FROM_FAILED: Final = "failed"
FROM_START: Final = "start"


class CancelData(Incoming):
    """Which request is not to be gone on with."""

    request: Label
    """The request's id, or its package's."""
    tenant: Label | None = None
    """Only if it is this tenant's: ids are unique only together with who asks."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """Why; repeated in the result."""


class RetryData(Incoming):
    """Which request is to be attempted once more."""

    request: Label
    """The request's id, or its package's."""
    tenant: Label | None = None
    """Only if it is this tenant's."""
    start: Annotated[str, Field(alias="from", min_length=1, max_length=200)] = FROM_FAILED
    """`failed` (the link that failed), `start`, or a link of the workflow that was reached: its id or its `execute`."""


class Command(Incoming):
    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=500)]
    """Who commands, as a URI reference."""
    time: Time | None = None


class Cancel(Command):
    """Stop a request, be it queued, parked, at work, or still to come. What is being stored is not stopped."""

    type: Literal["org.ingestd.control.cancel.v1"] = "org.ingestd.control.cancel.v1"
    data: CancelData


class Retry(Command):
    """Attempt a request that failed, or was cancelled, once more."""

    type: Literal["org.ingestd.control.retry.v1"] = "org.ingestd.control.retry.v1"
    data: RetryData


ControlCommand: TypeAlias = Cancel | Retry
_COMMAND: TypeAdapter[ControlCommand] = TypeAdapter(Annotated[ControlCommand, Field(discriminator="type")])


def read_command(body: bytes) -> ControlCommand:
    """Read a command. Raises `RequestError` with every violation."""
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(f"the command has {len(body)} bytes; at most {MAX_BODY_BYTES} are read")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the command is not JSON: {error}") from error
    return validated("command", raw, _COMMAND.validate_python)
