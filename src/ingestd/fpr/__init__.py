"""Preservation planning: the format policy registry, as versioned data."""

from ingestd.fpr.records import (
    Adapter,
    Command,
    Format,
    FormatVersion,
    Group,
    IdentificationCommand,
    IdentificationRule,
    Kind,
    Purpose,
    Rule,
    ScriptType,
    Tool,
    Usage,
)
from ingestd.fpr.registry import Registry

__all__ = [
    "Adapter",
    "Command",
    "Format",
    "FormatVersion",
    "Group",
    "IdentificationCommand",
    "IdentificationRule",
    "Kind",
    "Purpose",
    "Registry",
    "Rule",
    "ScriptType",
    "Tool",
    "Usage",
]
