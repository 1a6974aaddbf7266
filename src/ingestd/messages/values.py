"""What messages are made of: names, times, checksums, and text that JSON can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from ingestd.errors import RequestError, Violation
from ingestd.premis import DigestAlgorithm, rfc3339

MAX_CONTEXT_BYTES = 4 * 1024
MAX_DEPTH = 32
"""Most lists and objects within one another in a request: what is journalled must be readable again."""

Model = TypeVar("Model")

_SURROGATE = re.compile("[\ud800-\udfff]")


class Incoming(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Outgoing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def check_context(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_CONTEXT_BYTES:
        msg = f"must not be longer than {MAX_CONTEXT_BYTES} bytes as JSON"
        raise ValueError(msg)
    return value


def _name(value: str) -> str:
    if value != value.strip() or value in {".", ".."} or any(c == "/" or ord(c) < 32 or ord(c) == 127 for c in value):
        msg = "must not contain slashes or control characters, nor begin or end with a space"
        raise ValueError(msg)
    return value


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339, return_type=str, when_used="json")]
Context = Annotated[dict[str, Any], AfterValidator(check_context)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Checksum(Incoming):
    """A message digest."""

    algorithm: DigestAlgorithm
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{32,128}$")]
    """Lower-case hexadecimal."""


def unsound(raw: Any) -> Violation | None:
    """Find what would not come back from the journal as it went in: the first such value, level by level."""
    level: list[tuple[str, Any]] = [("", raw)]
    for _ in range(MAX_DEPTH):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, Mapping):
                inner += [(f"{path}.{safe_text(str(key))}", item) for key, item in value.items()]
                inner += [(path, key) for key in value if isinstance(key, str)]
            elif isinstance(value, list | tuple):
                inner += [(f"{path}.{index}", item) for index, item in enumerate(value)]
            elif rule := _unsound_scalar(value):
                return Violation(path=path.lstrip("."), rule=rule, expected="text and numbers as JSON has them")
        level = inner
    return Violation(path="", rule="too_deep", expected=f"at most {MAX_DEPTH} levels") if level else None


def _unsound_scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite"
    return "not_unicode" if isinstance(value, str) and _SURROGATE.search(value) else ""


def safe_text(text: str) -> str:
    """Write text so that JSON can hold it: bytes of a name that are not UTF-8 become `%HH`."""
    return _SURROGATE.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters; a longer one ends after a whole word, with `…`."""
    if len(text) <= most:
        return text
    cut = text[: most - 2]
    word = cut.rfind(" ")
    return f"{cut[:word].rstrip(',;') if word > most // 2 else cut} …"


def validated(what: str, raw: Any, validate: Callable[[Any], Model]) -> Model:
    """Give the model of what came in. Raises `RequestError` that says all that is wrong with it."""
    if found := unsound(raw):
        raise RequestError(f"the {what} is not valid: {found.path}", violations=(found,))
    try:
        return validate(raw)
    except ValidationError as error:
        violations = tuple(violation_of(item) for item in error.errors())
        names = ", ".join(sorted({violation.path for violation in violations}))
        raise RequestError(f"the {what} is not valid: {names}", violations=violations) from error


def violation_of(item: Any, prefix: str = "") -> Violation:
    """What pydantic found wrong, as a violation with its path and what was there."""
    path = ".".join([*([prefix] if prefix else []), *map(str, item["loc"])])
    actual = "" if item["type"] == "missing" else json.dumps(item.get("input"), default=str)[:200]
    expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return Violation(path=path, rule=item["type"], expected=expected, actual=actual)
