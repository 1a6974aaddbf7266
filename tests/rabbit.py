"""A private RabbitMQ node for the tests: its own home, ports and epmd, started and stopped by the suite itself.

Works as root and as an ordinary user, beside a system broker, on RabbitMQ 3.10 (Debian 12) and 4 (Debian 13).
Nothing here needs an event loop, so a fixture can start the node before any loop runs.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

SERVER_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")
"""Where the plain scripts are. Debian's `/usr/sbin/rabbitmq-server` is a wrapper that insists on the system's node."""

START_SECONDS = 90
STOP_SECONDS = 30

MISSING = (
    "RabbitMQ is not installed, and the tests of the message contract need it. "
    "`make test` installs it; by hand: apt-get install rabbitmq-server"
)


class RabbitMissingError(RuntimeError):
    """No RabbitMQ is installed."""


class RabbitFailedError(RuntimeError):
    """The node did not do what it was told; the message ends with what it last wrote."""


class RabbitNode:
    """One node in `folder`, which the caller gives and removes. Use as a context manager, or call start and stop.

    `settings` are lines for rabbitmq.conf. A failure names the end of the node's logs. A node that is made `beside`
    another, which must run, can `join` its cluster; it is closed first.
    """

    def __init__(
        self, folder: Path, *, settings: dict[str, str] | None = None, beside: RabbitNode | None = None
    ) -> None:
        self.folder = folder
        self.programs = find_programs()
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        self._founder = beside
        if beside is not None:
            self._epmd_port = beside._epmd_port
        self.name = f"ingestd-{os.getpid()}-{self.port}@localhost"
        self._settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "disk_free_limit.absolute": "50MB",
            "log.file.level": "info",
            "loopback_users.guest": "true",
        } | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._write_files()

    # --- what tests ask

    @property
    def url(self) -> str:
        return self.url_for(self.port)

    def url_for(self, port: int, vhost: str = "/") -> str:
        """Give the URL by way of another port of this machine, such as a proxy's."""
        return f"amqp://guest:guest@127.0.0.1:{port}/{quote(vhost, safe='')}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # --- life

    def start(self) -> Self:
        """Start the node, on what an earlier run of it left, and wait until it takes connections."""
        if self.is_running:
            return self
        self._close_output()
        self._output = (self.folder / "log" / "console.log").open("ab")
        self._process = subprocess.Popen(
            [self.programs / "rabbitmq-server"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            start_new_session=True,
        )
        self._wait(self._speaks_amqp, START_SECONDS, "take connections")
        return self

    def stop(self) -> None:
        """Stop as an operator does: what was confirmed is on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the node and its epmd for good. Works whatever state they are in."""
        if self.is_running:
            with suppress(RabbitFailedError):
                self.stop()
        shared = f"ERL_EPMD_PORT={self._epmd_port}"
        for pid in self._pids() if self._founder is not None else processes_with(shared):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._close_output()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def join(self) -> None:
        """Become one cluster with the node beside which this one was made."""
        assert self._founder is not None
        self.control("stop_app")
        self.control("join_cluster", self._founder.name)
        self.control("start_app")

    # --- trouble

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; it takes most of a second, so what can be done over AMQP is done there."""
        run = subprocess.run(
            [self.programs / "rabbitmqctl", "--quiet", "--node", self.name, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if run.returncode:
            raise RabbitFailedError(f"rabbitmqctl {arguments[0]}: exit {run.returncode}\n{run.stderr[-2000:]}")
        return run.stdout

    def block_publishers(self) -> None:
        """Raise the memory alarm: the broker stops reading from connections that publish."""
        self.control("set_vm_memory_high_watermark", "0")

    def unblock_publishers(self) -> None:
        self.control("set_vm_memory_high_watermark", "0.6")

    def close_connections(self, reason: str = "closed by the test") -> None:
        """Close every connection from the broker's side, as an operator can."""
        self.control("close_all_connections", reason)

    def elect(self) -> None:
        """Have every quorum queue choose its leader, as an operator can.

        On a single node of RabbitMQ 3.10 that was restarted, now and then one chooses none by itself, and then neither
        takes nor gives a message (rabbitmq-server, issue 10070).
        """
        self.control(
            "eval",
            "[ra:trigger_election(amqqueue:get_pid(Q)) || Q <- rabbit_amqqueue:list(),"
            " amqqueue:get_type(Q) =:= rabbit_quorum_queue].",
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the node without closing a connection: a machine that hangs."""
        pids = processes_with(f"RABBITMQ_NODENAME={self.name}")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def log_tail(self, size: int = 4000) -> str:
        """Give the end of what the node logged, for a failing test."""
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-size:]}" for path in logs)

    # --- inside

    @property
    def _environment(self) -> dict[str, str]:
        """Nothing of the system's node, nor of a setting of whoever runs the tests."""
        folder = self.folder
        mine = {
            "HOME": folder / "home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._epmd_port,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self._dist_port,
            "RABBITMQ_MNESIA_BASE": folder / "data",
            "RABBITMQ_LOG_BASE": folder / "log",
            "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": folder / "advanced.config",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
            "RABBITMQ_SCHEMA_DIR": folder / "schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": folder / "schema",
            "RABBITMQ_PID_FILE": folder / "pid",
        }
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return kept | {name: str(value) for name, value in mine.items()}

    def _write_files(self) -> None:
        for name in ("home", "data", "log", "schema"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lines = (f"{name} = {value}\n" for name, value in self._settings.items())
        (self.folder / "rabbitmq.conf").write_text("".join(lines))
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        if self._founder is not None:  # nodes and their tools know each other by it
            shutil.copy2(self._founder.folder / "home" / ".erlang.cookie", self.folder / "home")

    def _speaks_amqp(self) -> bool:
        """Ask for the start of the handshake: the port opens a moment before the node answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        # A stop is for Erlang alone, which ends the rest; the shell that started it only waits.
        for pid in self._pids():
            if how is signal.SIGKILL or program_of(pid) == "beam.smp":
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
        deadline = time.monotonic() + STOP_SECONDS
        # The shell is gone before Erlang is, and with Erlang the port: both must be.
        while process.poll() is None or self._pids():
            if time.monotonic() > deadline:
                for pid in self._pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise RabbitFailedError(f"RabbitMQ did not stop in {STOP_SECONDS} s\n{self.log_tail()}")
            time.sleep(0.05)
        self._process = None

    def _pids(self) -> list[int]:
        """Give the node's processes without epmd, which is shared by all its lives and stays until the end."""
        return [pid for pid in processes_with(f"RABBITMQ_NODENAME={self.name}") if program_of(pid) != "epmd"]

    def _wait(self, ready: Callable[[], bool], limit_seconds: float, what: str) -> None:
        deadline = time.monotonic() + limit_seconds
        while not ready():
            if not self.is_running:
                raise RabbitFailedError(f"RabbitMQ ended before it could {what}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RabbitFailedError(f"RabbitMQ did not {what} in {limit_seconds} s\n{self.log_tail()}")
            time.sleep(0.1)

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None


def find_programs() -> Path:
    """Give the folder of RabbitMQ's plain scripts. Raises `RabbitMissingError`, which says how to install it."""
    beside = shutil.which("rabbitmq-server")
    places = [Path(place) for place in SERVER_PLACES]
    if beside:
        places.append(Path(beside).resolve().parent)
    for place in places:
        if (place / "rabbitmq-server").exists() and (place / "rabbitmqctl").exists():
            return place
    raise RabbitMissingError(MISSING)


def free_ports(count: int) -> tuple[int, ...]:
    """Give ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


def processes_with(setting: str) -> list[int]:
    """Find this machine's processes that were started with `NAME=value` in their environment, this one left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if setting.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def program_of(pid: int) -> str:
    """Give the name that the kernel knows a process by; empty once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""
