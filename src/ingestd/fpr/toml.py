"""Writing of a record as a TOML table, as a person would: scripts keep their lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")


def table(name: str, values: Mapping[str, Any]) -> str:
    """Give `[[name]]` with its values: texts, numbers, booleans, lists of these, and tables of such, one deep."""
    own = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    nested = [
        f"\n[{name}.{key}]\n" + "\n".join(f"{inner} = {_value(value)}" for inner, value in values[key].items())
        for key in values
        if isinstance(values[key], Mapping)
    ]
    return "\n".join([f"[[{name}]]", *own, *nested]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    text = str(value)
    if "\n" in text and "'''" not in text and not text.endswith("'") and _PLAIN.fullmatch(text):
        return f"'''\n{text}'''"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
