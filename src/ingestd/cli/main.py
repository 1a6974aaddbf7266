"""The commands of `ingestd` and their options."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import textwrap
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from ingestd import __version__
from ingestd.config import Settings
from ingestd.errors import IngestError, RequestError
from ingestd.messages import CompressionAlgorithm, Priority, ProcessingConfig
from ingestd.oais import Reingest, TransferType

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
Settings come from INGESTD_... variables and from the TOML file that --config or INGESTD_CONFIG names;
`ingestd config` shows those in force. Exit codes: 0 success, 1 failed, 2 rejected or bad usage."""

Command = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code."""
    options = parser().parse_args(arguments)
    from ingestd.cli.report import print_error
    from ingestd.logs import configure
    from ingestd.workfolder import unusable

    try:
        settings = Settings.load(options.config)
        level = options.log_level or (settings.log_level if options.command == "serve" else "error")
        configure(level=level, style=settings.log_format)
        return asyncio.run(_command(options.command)(options, settings))
    except IngestError as error:
        print_error(error, as_json=getattr(options, "json", False))
        return REFUSED if error.code.category in {"request", "system", "source", "policy"} else FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return OK
    except OSError as error:
        if error.filename is None:
            raise
        name = os.fsdecode(error.filename)
        print_error(
            unusable(error, name) or RequestError(f"{name}: {error.strerror}", remediation="Name another one."),
            as_json=getattr(options, "json", False),
        )
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED


def _command(name: str) -> Command:
    from ingestd.cli import aip, broker, commands, embedded, fpr, inspect, packages, replay, stored, validate

    known: dict[str, Command] = {
        "ingest": embedded.ingest,
        "reingest": embedded.ingest,
        "resume": embedded.resume,
        "validate": validate.validate,
        "packages": packages.packages,
        "cancel": commands.cancel,
        "retry": commands.retry,
        "replay": replay.replay,
        "serve": broker.serve,
        "submit": broker.submit,
        "watch": broker.watch,
        "topology": broker.topology,
        "doctor": inspect.doctor,
        "workflow": inspect.workflow,
        "config": inspect.config,
        "schemas": inspect.schemas,
        "fpr": fpr.fpr,
        "aip": aip.aip,
        "audit": stored.audit_storage,
        "reconcile": stored.reconcile,
    }
    return known[name]


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    top = argparse.ArgumentParser(
        prog="ingestd",
        description="Turn what an archive receives into a stored, verified Archival Information Package (AIP).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ingestd {__version__}")
    top.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    top.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="what is logged to stderr")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _embedded(commands)
    _broker(commands)
    _inspect(commands)
    return top


def _add(commands: Any, name: str, text: str, *, more: str = "") -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text}. {more}".strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return added


def _embedded(commands: Any) -> None:
    ingest = _add(
        commands,
        "ingest",
        "preserve one source here and now, with no broker",
        more="""
SOURCE is a folder, a file, an archive (zip, tar, tar.gz/bz2/xz/zst, 7z, rar) or a bag, as a path or file:// URL; an
http(s):// URL of a file or archive; or an s3://, az:// or gs:// URL of an object, or of a prefix that ends with `/`.
The AIP goes to the default storage location, or below --output.
An ingest that was interrupted goes on when the same command is run again; one that could not print its result does.

  ingestd ingest photographs/ --name "Photographs 1931" --output /srv/aips
  ingestd ingest letters.zip --set aip_compression_algorithm=tar_zstd --set normalize=false""",
    )
    _source(ingest)
    _embedded_options(ingest)
    validate = _add(
        commands,
        "validate",
        "look at a source, or a request, as ingest would before it begins; nothing is written",
        more="""
Tells everything that would reject it, and what to do: names, sizes, structure, bags (without digests), metadata files,
options, target. Exit codes: 0 nothing is wrong, 2 something is. A --request is judged as one from the broker is: its
source must lie where the settings `sources` allow.""",
    )
    _source(validate, optional=True)
    validate.add_argument("--request", type=Path, metavar="FILE", help="a request as JSON, as sent to the broker")
    validate.add_argument("--json", action="store_true", help="print what was found as one JSON object on stdout")
    reingest = _add(
        commands,
        "reingest",
        "make the next version of an AIP, ours or Archivematica's, here and now",
        more="""
AIP is the UUID of one in archival storage, or a path or URL of its folder or package. It is proved first, and what is
stored of it stays as it is.

  ingestd reingest 01234567-89ab-4def-8123-456789abcdef --metadata new-descriptions/
  ingestd reingest letters-6f3c4ac1-2f1b-4d33-9a0c-5f4b6f0e7c11.7z --dc title=Letters
  ingestd reingest AIP --type partial --set normalize=false --set normalize_for_access=true
  ingestd reingest AIP --type full""",
    )
    _reingest(reingest)
    _embedded_options(reingest)
    resume = _add(
        commands,
        "resume",
        "go on with a package that failed or was interrupted, at the link where it stopped",
        more="PACKAGE is its id or its working folder, which the error named.",
    )
    resume.add_argument("package", metavar="PACKAGE")
    resume.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    _packages(commands)


def _packages(commands: Any) -> None:
    packages = _add(
        commands,
        "packages",
        "list, fetch and remove the working folders that are kept",
        more="""
Without an action, lists every package that has one, with its state, size and age. What failed is kept for as long as
the setting janitor.keep_failed_seconds says, so that it can be looked at (fetch) and gone on with (resume).""",
    )
    packages.add_argument("--json", action="store_true", help="print as JSON")
    actions = packages.add_subparsers(dest="action", metavar="ACTION")
    fetch = actions.add_parser("fetch", help="copy a package's working folder to FOLDER/PACKAGE")
    remove = actions.add_parser("remove", help="remove a package's working folder now; its request stays known")
    for action in (fetch, remove):
        action.add_argument("package", metavar="PACKAGE", help="its id, or its working folder")
    fetch.add_argument("folder", metavar="FOLDER", type=Path)
    clean = actions.add_parser("clean", help="remove what no live package owns, as the service does by itself")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed, and why")


def _embedded_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, metavar="DIR", help="store the AIP below this folder")
    command.add_argument("--again", action="store_true", help="do not go on with an interrupted ingest; start anew")
    command.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")


def _reingest(command: argparse.ArgumentParser) -> None:
    command.set_defaults(type=TransferType.REINGEST, name=None, accession=None)
    command.add_argument("source", metavar="AIP", help="its UUID, or where it is")
    command.add_argument(
        "--type",
        dest="reingest",
        choices=list(Reingest),
        default=Reingest.METADATA,
        help="`metadata` adds descriptions, rights, identifiers; `partial` besides makes preservation copies and a DIP"
        " anew, as the options say; `full` examines the content anew, too (default: metadata)",
    )
    _shared(command)


def _source(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    command.add_argument("source", metavar="SOURCE", nargs="?" if optional else None, help="what to preserve")
    command.add_argument("--name", help="the package's name (default: the source's)")
    command.add_argument(
        "--type",
        choices=list(TransferType),
        default=TransferType.AUTO,
        help="what the source is (default: see for itself)",
    )
    command.add_argument("--accession", metavar="NUMBER", help="accession number, recorded in the AIP")
    command.add_argument(
        "--reingest", choices=list(Reingest), help="with --type reingest: how much is done again (default: metadata)"
    )
    _shared(command)


def _shared(command: argparse.ArgumentParser) -> None:
    command.epilog = f"processing options, for --set, as they are where nothing else is said:\n{_options()}"
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="a processing option, repeatable; all are listed below",
    )
    command.add_argument(
        "--fpr",
        type=Path,
        metavar="FILE",
        help="TOML file with [[rule]] and [[disable]]: format policy of this package (setting fpr_overrides)",
    )
    command.add_argument(
        "--checksum", metavar="ALGORITHM:HEX", help="what a file or archive must be, e.g. sha256:9f86…"
    )
    command.add_argument(
        "--metadata", metavar="FOLDER", help="reingest: more to stand in metadata/, as a folder, archive or URL"
    )
    command.add_argument("--credentials", metavar="NAME", help="which of the settings' `credentials` opens the source")
    command.add_argument("--identifier", metavar="ID", help="your own identifier, repeated in events and in the bag")
    command.add_argument(
        "--dc",
        action="append",
        default=[],
        metavar="ELEMENT=VALUE",
        help="Dublin Core of the whole package, repeatable",
    )


def _options() -> str:
    """Every processing option with its default, its values, and what it does."""
    lines = []
    for name, field in ProcessingConfig.model_fields.items():
        default = str(field.default).lower()
        values = (
            f" One of {', '.join(CompressionAlgorithm)}." if isinstance(field.default, CompressionAlgorithm) else ""
        )
        does = " ".join(f"{field.description}{values}".split())
        lines += [f"  {name}={default}", *textwrap.wrap(does, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)


def _broker(commands: Any) -> None:
    _add(
        commands,
        "serve",
        "run the service on RabbitMQ",
        more="Takes requests while it has a free slot; stops cleanly on SIGTERM and SIGINT.",
    )
    submit = _add(
        commands,
        "submit",
        "publish a preservation request",
        more="The source must be readable by the service. With --wait, follow it to its result.",
    )
    _source(submit)
    submit.add_argument("--tenant", default="default", help="on whose behalf (a word of the routing keys)")
    submit.add_argument("--collection", default="default", help="what it belongs to (a word of the routing keys)")
    submit.add_argument("--location", help="where the AIP is to be stored: a location of the service's settings")
    submit.add_argument("--key", metavar="KEY", help="idempotency key: the same key makes the same AIP, once")
    submit.add_argument("--priority", choices=list(Priority), default=Priority.NORMAL, help="how urgent it is")
    submit.add_argument("--expires-at", metavar="TIME", help="not begun by then (RFC 3339), it is rejected")
    submit.add_argument(
        "--batch",
        metavar="ID:SIZE[:stop]",
        help="one of SIZE requests that are told of together; "
        "with `:stop`, those not begun are cancelled once one fails",
    )
    submit.add_argument("--requester", default="urn:ingestd:cli", metavar="URI", help="who asks")
    submit.add_argument("--wait", action="store_true", help="print its events and end with its result")
    submit.add_argument("--json", action="store_true", help="print events as JSON lines")
    watch = _add(
        commands,
        "watch",
        "print events and results as they come",
        more="Bindings are topic patterns, e.g. 'acme.*.succeeded', '#.failed', '*.link.failed'.",
    )
    watch.add_argument("bindings", nargs="*", default=["#"], metavar="BINDING", help="topic patterns (default: all)")
    watch.add_argument("--json", action="store_true", help="print events as JSON lines")
    _commands(commands)
    _replay(commands)
    _add(commands, "topology", "declare exchanges, queues and bindings on the broker")


def _commands(commands: Any) -> None:
    cancel = _add(
        commands,
        "cancel",
        "stop a request",
        more="""
REQUEST is the id that `submit` printed, or the id of the package. A package of this data folder is stopped here;
for any other, every worker on the broker is told: it stops what it has in hand, and what comes later under that id.
What is already being stored is not stopped.""",
    )
    retry = _add(
        commands,
        "retry",
        "attempt once more a request that failed or was cancelled",
        more="""
REQUEST is as for `cancel`. The attempt begins at the link that failed, or where --from says: at `start`, or at a link
that was reached, named by its id or its `execute` (`ingestd workflow graph` shows them).""",
    )
    for command in (cancel, retry):
        command.add_argument("request", metavar="REQUEST")
        command.add_argument("--tenant", help="only if it is this tenant's")
        command.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    cancel.add_argument("--reason", default="", help="why; repeated in the result")
    retry.add_argument("--from", dest="start", default="failed", metavar="LINK|start", help="where to begin")


def _replay(commands: Any) -> None:
    replay = _add(
        commands,
        "replay",
        "look at messages that are kept, and send them on their way once more",
        more="""
Dead letters are messages that are no request, that could not be taken, or that expired in their queue; unrouted are
results that nobody had bound a queue for.

  ingestd replay list                       what is kept, and why
  ingestd replay show ID                    one message whole
  ingestd replay one ID                     send one again to where it came from
  ingestd replay all --code system.bug      send all again, or those with one error code""",
    )
    replay.add_argument("action", choices=["list", "show", "one", "all"])
    replay.add_argument("id", nargs="?", metavar="ID", help="show, one: the message's id, as `list` shows it")
    replay.add_argument("--queue", choices=["dead", "unrouted"], default="dead", help="which messages (default: dead)")
    replay.add_argument("--code", help="list, all: only those with this error code")
    replay.add_argument("--json", action="store_true", help="print as JSON lines")


def _inspect(commands: Any) -> None:
    doctor = _add(commands, "doctor", "list every tool and library: version, purpose, and what is missing")
    doctor.add_argument("--json", action="store_true", help="print as JSON")
    workflow = _add(commands, "workflow", "prove or draw the workflow")
    workflow.add_argument("action", choices=["check", "graph"], help="check: prove it sound; graph: draw it")
    workflow.add_argument("file", nargs="?", type=Path, help="a workflow file (default: the one in force)")
    workflow.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="graph: write here (default: SVG on stdout; a name ending in .dot needs no Graphviz)",
    )
    config = _add(commands, "config", "print the settings in force, secrets hidden")
    config.add_argument("--describe", action="store_true", help="say what each setting is for")
    from ingestd.cli import aip_parser, fpr_parser, stored_parser

    aip_parser.add_actions(_add(commands, "aip", "look into AIPs, ours and Archivematica's"))
    stored_parser.add_audit(
        _add(
            commands,
            "audit",
            "read everything in archival storage again, and hold it against its digests",
            more="A run that was stopped goes on where it was. Exit code 1 when a copy is damaged or cannot be read.",
        )
    )
    reconcile = _add(
        commands,
        "reconcile",
        "settle requests of which it could not be told whether their AIP is stored",
        more="Looks whether it is, proves it if so, and stores it if not.",
    )
    reconcile.add_argument("--json", action="store_true", help="print results as JSON objects on stdout")
    fpr_parser.add_actions(_add(commands, "fpr", "look into, check, try, import and export the format policy registry"))
    schemas = _add(commands, "schemas", "write the published JSON Schemas and the AsyncAPI document")
    schemas.add_argument("folder", type=Path, help="where to write them")
