"""What an export of ours brings back unchanged gets all again that the dump has no word for."""

from __future__ import annotations

from ingestd.fpr.export import told
from ingestd.fpr.records import Command, IdentificationCommand, Record
from ingestd.fpr.registry import Registry

_WORDLESS = (
    "script_type",
    "script",
    "exit_codes",
    "outcome",
    "adapter",
    "otherwise",
    "alone",
    "together",
    "limit_seconds",
)


def as_shipped(record: Record, shipped: Registry) -> Record:
    """Give an imported command, whose script is what an export makes of the shipped one of its id, the shipped script
    with its adapter, exit codes, limits and stand-in; any other record as it is.
    """
    if isinstance(record, Command):
        command = shipped.as_written(Command, record.id)
        if command and told(command) == (record.script_type, record.script):
            return record.model_copy(update={name: getattr(command, name) for name in _WORDLESS})
    if isinstance(record, IdentificationCommand):
        known = shipped.as_written(IdentificationCommand, record.id)
        if known and (known.script_type, known.script) == (record.script_type, record.script):
            return record.model_copy(update={"adapter": known.adapter})
    return record
