"""The actions of `ingestd fpr` and their options; apart, so that every other command starts without the registry."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_actions(command: argparse.ArgumentParser) -> None:
    """Give the parser of `fpr` its actions."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        if as_json:
            added.add_argument("--json", action="store_true", help="print as JSON")
        return added

    shown = add("show", "everything about one record: a format, command, rule, tool or group")
    shown.add_argument("id", metavar="ID|PUID")
    ruled = add("rules", "the rules in force: what is run on which format and purpose, and how often it worked out")
    ruled.add_argument("--purpose", metavar="PURPOSE", help="preservation, validation, access, …")
    ruled.add_argument("--puid", help="what is run on files of this format, defaults too")
    listed = add("formats", "the formats of the registry, with the purposes that they have rules for")
    listed.add_argument("text", nargs="?", default="", metavar="TEXT", help="in PUID, description or group")
    add("commands", "the commands in force, and whether their tools can be had here")
    told = add("history", "what each layer says of a record, and what it replaces, the newest first")
    told.add_argument("id", metavar="ID|PUID")
    add("diff", "what the site's folders (setting fpr_folders) change of the shipped registry")
    checked = add("check", "check the registry as a whole: every record against every other")
    checked.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="laid over the registry in force")
    tried = add("test", "run one rule, or command, on one file: command line, output, verification, event detail")
    tried.add_argument("rule", metavar="RULE", help="the id of a rule, a command or an identification command")
    tried.add_argument("file", type=Path, metavar="FILE")
    tried.add_argument("--output", type=Path, metavar="DIR", help="keep what is written in this folder")
    brought = add("import", "make a site folder of an Archivematica or a3m registry dump, history and all")
    brought.add_argument("dump", type=Path, metavar="DUMP.json", help="made by `manage.py dumpdata fpr`")
    brought.add_argument("folder", type=Path, metavar="FOLDER", help="the new folder")
    out = add(
        "export", "write the registry in force as a registry dump, in the form that `import` reads", as_json=False
    )
    out.add_argument("file", nargs="?", type=Path, metavar="FILE", help="where to (default: stdout)")
