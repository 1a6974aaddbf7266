"""A connection to RabbitMQ, and every one of its failures as a `dependency.broker` that a person can act on.

Two traps of the AMQP library are answered here once. When a connection closes, whatever waits on it may see a
`CancelledError` although nobody cancelled it; and an answer that never comes is waited for without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aio_pika
import aio_pika.abc
from aio_pika import exceptions
from aiormq.abc import AbstractConnection as Wire

from ingestd.config import AmqpSettings
from ingestd.errors import Code, DependencyError, SystemFault

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 60.0
"""How long the broker may take to answer or confirm."""

T = TypeVar("T")


class BrokerError(DependencyError):
    """The broker is away, or cannot do what is asked: connect again, later."""


class RefusedError(BrokerError):
    """The broker is there, and did not take this one message (for instance, a full queue)."""


class TopologyError(BrokerError):
    """An exchange or queue is missing, or is not as it should be."""


def safe_url(settings: AmqpSettings) -> str:
    """The broker's address without its secrets. Raises `SystemFault` (`system.configuration`)."""
    try:
        parts = urlsplit(settings.url.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in {"amqp", "amqps"} or not host:
        raise SystemFault(
            "amqp.url is not an AMQP address",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Set amqp.url to amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS; "
            "write special characters in the password percent-encoded.",
        )
    user = f"{parts.username}@" if parts.username else ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{user}{name}{f':{port}' if port else ''}{parts.path}"


class _Connection(aio_pika.Connection):
    """One that is closed when it could not connect, or could not be closed in time.

    The library's own is not. When it is collected it wants to be closed, on a loop that may not be there any more.
    """

    async def connect(self, timeout: aio_pika.abc.TimeoutType = None) -> None:
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise

    async def close(
        self, exc: BaseException | type[BaseException] | None = aio_pika.exceptions.ConnectionClosed
    ) -> None:
        try:
            await super().close(exc)
        except BaseException:
            await super().close(exc)  # its transport is gone: this only says so
            raise


@contextlib.asynccontextmanager
async def connected(settings: AmqpSettings, name: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """Connect, and close at the end. `name` is what RabbitMQ's own tools show.

    Raises `BrokerError` that names the address without its password.
    """
    connection = await _connect(settings, name)
    try:
        yield connection
    finally:
        with contextlib.suppress(BrokerError):
            async with answered(5):
                await connection.close()


async def _connect(settings: AmqpSettings, name: str) -> aio_pika.abc.AbstractConnection:
    shown = safe_url(settings)
    context = await asyncio.to_thread(_tls, settings) if shown.startswith("amqps:") else None
    try:
        async with answered(CONNECT_SECONDS):
            return await aio_pika.connect(
                settings.url.get_secret_value(),
                ssl_context=context,
                heartbeat=settings.heartbeat_seconds,
                client_properties={"connection_name": name},
                connection_class=_Connection,
            )
    except BrokerError as error:
        detail = _without_secret(error.detail, settings)
        # The library's own exception is not chained: it may hold the address with the password.
        raise BrokerError(f"{shown}: {detail}", remediation=error.remediation) from None
    except ValueError:
        raise BrokerError(f"{shown}: the address cannot be used", remediation="Correct amqp.url.") from None


def _tls(settings: AmqpSettings) -> ssl.SSLContext:
    """What of TLS is set. Raises `SystemFault` (`system.configuration`) that names what cannot be read."""
    setting = "amqp.ca_file"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate is not None:
            setting = "amqp.certificate, with amqp.key,"
            # Whoever is asked for a password waits for ever: a key that has one is refused.
            context.load_cert_chain(settings.certificate, settings.key, password="")
    except (OSError, ValueError) as error:
        raise SystemFault(f"{setting} cannot be used: {error}", code=Code.SYSTEM_CONFIGURATION) from error
    return context


def _without_secret(text: str, settings: AmqpSettings) -> str:
    password = urlsplit(settings.url.get_secret_value()).password
    for secret in {password, unquote(password or "")} - {None, ""}:
        text = text.replace(str(secret), "***")
    return text


@contextlib.asynccontextmanager
async def answered(limit_seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
    """Whatever the broker is asked for within is answered in time, or a `BrokerError` is raised."""
    try:
        async with asyncio.timeout(limit_seconds):
            yield
    except TimeoutError as error:
        raise BrokerError(f"the broker did not answer within {limit_seconds:g} seconds") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError("the connection was closed") from error
    except exceptions.CONNECTION_EXCEPTIONS as error:
        raise explained(error) from error


def explained(error: BaseException) -> BrokerError:
    """Say what an error of the AMQP library means, and what to do about it."""
    text = _text(error)
    kind, remediation = BrokerError, ""
    match error:
        case exceptions.ChannelPreconditionFailed():
            kind, remediation = TopologyError, _OTHER_ARGUMENTS
        case exceptions.ChannelNotFoundEntity():
            kind, remediation = TopologyError, "Declare the topology with `ingestd topology`."
        case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
            remediation = "Check user, password and virtual host in amqp.url."
        case exceptions.InvalidFrameError() if "Connection.Close" in text:
            text = "the broker closed the connection while it was being opened"
            remediation = "Check the virtual host in amqp.url, and that its user may use it."
        case exceptions.ChannelClosed() if "ACCESS_REFUSED" in text:
            remediation = _NOT_ALLOWED
        case exceptions.DeliveryError():
            kind, text = RefusedError, f"the broker did not take a message: {text}"
            remediation = "Look whether a queue that is bound to the exchange is full, or has lost its majority."
    return kind(text, remediation=remediation)


_OTHER_ARGUMENTS = (
    "Something of this name is there with other arguments. Give back the setting that changed, or empty and delete "
    "what the detail names and declare it anew (`ingestd topology`), or set another name for it (settings amqp.…)."
)
_NOT_ALLOWED = (
    "Give the account the right that the detail names. Where the service may not declare, set amqp.declare to false "
    "and run `ingestd topology` once with an account that may."
)


def _text(error: BaseException) -> str:
    said = " ".join(str(part) for part in error.args if part is not None and not isinstance(part, type))
    return (said or str(error) or type(error).__name__)[:500]


def wire(connection: aio_pika.abc.AbstractConnection) -> Wire:
    """The connection below the library's: it tells of closing, and of being blocked. Raises `BrokerError`."""
    if connection.transport is None:
        raise BrokerError("the connection was closed")
    return connection.transport.connection


async def lost(*parts: Any) -> None:
    """Wait until one of these connections and channels closes, and raise why. Never returns."""
    endings = [part.closing for part in parts]
    try:
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        ended = next(ending for ending in endings if ending.done())
        cause = None if ended.cancelled() else ended.exception()
    finally:
        for ending in endings:
            ending.cancel()
    if isinstance(cause, Exception):
        raise explained(cause) from cause
    raise BrokerError("the connection was closed")


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work` to its end, or until `stop` is set: then it is cancelled and None is returned."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        stopping = group.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        working.cancel()
    return None if working.cancelled() else working.result()


def root(error: BaseException) -> BaseException:
    """The first error within a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Backoff:
    """Growing waits with full jitter: each is anything up to a bound that doubles, so that workers spread out."""

    def __init__(self, *, min_seconds: float, max_seconds: float, rng: random.Random | None = None) -> None:
        self._min = min_seconds
        self._max = max_seconds
        self._rng = rng or random.SystemRandom()
        self._failures = 0

    def next_seconds(self) -> float:
        bound = min(self._max, self._min * 2 ** min(self._failures, 32))
        self._failures += 1
        return self._rng.uniform(0, bound)

    def reset(self) -> None:
        self._failures = 0
