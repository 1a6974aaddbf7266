"""Fetches an `http(s)` source to a file, taking up again what was interrupted, also by a restart of this service.

Python's own client: no other is needed to send one GET and read a stream, and the two things that matter here, to
connect to the very address that was checked and to see each redirect, are the ones that larger clients hide. It
keeps no cookies, sends no credentials and knows no proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import http.client
import json
import os
import random
import re
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ingestd
from ingestd.errors import Code, IngestError, SourceError
from ingestd.sources.copying import CHUNK_BYTES, no_room
from ingestd.sources.locations import Url, may_connect, parse_url, too_large
from ingestd.sources.names import NAME_BYTES
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import SourceSettings

REDIRECTS = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

_BODY = "download"
_STATE = "download.json"

_MOVED = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 402, 403, 407, 451})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A file that was fetched, and what it is called."""

    path: Path
    name: str


class _Interrupted(Exception):
    """The download stopped and may be taken up again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What is known of a download in hand: the URL asked for, and the server's word for this very content."""

    url: str
    validator: str = ""
    name: str = ""


async def download(
    location: str,
    folder: Path,
    *,
    settings: SourceSettings,
    trusted: bool,
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
) -> Download:
    """Fetch a URL into `folder`, where a second call goes on with what a first one left.

    Raises `SourceError` (`source.not_found`, `source.access_denied`, `source.download_interrupted`), `RequestError` for
    a URL or a redirect that may not be followed, `PolicyError` (`policy.size_over_limit`), `ResourceError`.
    """
    parse_url(location, settings, trusted=trusted)
    worker = Worker()
    fetch = _Fetch(location, folder, settings, trusted=trusted, breathe=worker.breathe)
    for attempt in range(settings.http_attempts + 1):
        try:
            return await worker.run(fetch.once)
        except _Interrupted as error:
            if attempt == settings.http_attempts:
                raise SourceError(
                    f"the download was interrupted {attempt + 1} times: {error}", code=Code.SOURCE_DOWNLOAD_INTERRUPTED
                ) from error
        pause = min(LONGEST_PAUSE_SECONDS, first_pause_seconds * 2**attempt)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
    raise AssertionError  # the last attempt returned or raised


def forget_download(folder: Path) -> None:
    """Remove what `download` left in a folder, done or not."""
    for name in (_BODY, _STATE):
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a server says of a file before it is fetched. `size_bytes` is None where it does not say."""

    name: str
    size_bytes: int | None = None


async def ask_head(location: str, *, settings: SourceSettings, trusted: bool, seconds: float) -> Head | None:
    """Ask for a URL's head; None where the answer says nothing for sure, as when a server knows GET alone.

    Raises `SourceError` (`source.not_found`), `RequestError` for a URL or redirect that may not be followed, and
    `PolicyError` (`policy.size_over_limit`).
    """
    limited = settings.model_copy(update={"http_timeout_seconds": min(seconds, settings.http_timeout_seconds)})
    return await Worker().run(lambda: _head(location, limited, trusted=trusted))


def _head(location: str, settings: SourceSettings, *, trusted: bool) -> Head | None:
    url = parse_url(location, settings, trusted=trusted)
    try:
        for _ in range(REDIRECTS + 1):
            with (
                contextlib.closing(_connect(url, settings, trusted=trusted)) as connection,
                _ask(connection, url, 0, "", method="HEAD") as response,
            ):
                if response.status not in _MOVED:
                    return _told(response, url, settings)
                to = response.headers.get("Location")
                if not to:
                    return None
                url = _moved(url, to, settings, trusted=trusted)
    except (OSError, http.client.HTTPException) as error:
        found = _lost(error)
        if isinstance(found, IngestError):
            raise found from error
    return None


def _told(response: http.client.HTTPResponse, url: Url, settings: SourceSettings) -> Head | None:
    """Read a head. Only what is gone is sure: a link that was signed for GET is refused when it is asked by HEAD."""
    if response.status in _GONE:
        raise SourceError(f"{url.host} answered with status {response.status}", code=Code.SOURCE_NOT_FOUND)
    if response.status != 200:
        return None
    said = response.headers.get("Content-Length", "")
    size = int(said) if said.isdecimal() and len(said) < 19 else None
    if size is not None and size > settings.max_bytes:
        raise too_large(settings, size)
    return Head(name=_name(response.headers, url), size_bytes=size)


class _Fetch:
    """One file to be fetched, in as many attempts as it takes. Everything here blocks."""

    def __init__(
        self, location: str, folder: Path, settings: SourceSettings, *, trusted: bool, breathe: Callable[[], None]
    ) -> None:
        self.location = location
        self.settings = settings
        self.trusted = trusted
        self.breathe = breathe
        self.body = folder / _BODY
        self.state = folder / _STATE

    def once(self) -> Download:
        """Fetch what is missing. Raises `_Interrupted` for what may go better next time."""
        self.body.parent.mkdir(parents=True, exist_ok=True)
        part = self._read_part()
        have = self.body.stat().st_size if part.validator and self.body.exists() else 0
        url = parse_url(self.location, self.settings, trusted=self.trusted)
        try:
            for _ in range(REDIRECTS + 1):
                with (
                    contextlib.closing(_connect(url, self.settings, trusted=self.trusted)) as connection,
                    _ask(connection, url, have, part.validator) as response,
                ):
                    if response.status not in _MOVED:
                        return self._take(response, url, have)
                    url = self._follow(url, response)
        except OSError as error:
            raise no_room(error, str(self.body.parent)) or _lost(error) from error
        except http.client.HTTPException as error:
            raise _lost(error) from error
        raise SourceError(f"more than {REDIRECTS} redirects", code=Code.SOURCE_DOWNLOAD_INTERRUPTED)

    def _follow(self, url: Url, response: http.client.HTTPResponse) -> Url:
        to = response.headers.get("Location")
        if not to:
            raise SourceError(f"status {response.status} without a Location", code=Code.SOURCE_DOWNLOAD_INTERRUPTED)
        return _moved(url, to, self.settings, trusted=self.trusted)

    def _take(self, response: http.client.HTTPResponse, url: Url, have: int) -> Download:
        if response.status == 416 and have:
            forget_download(self.body.parent)
            raise _Interrupted("the server no longer has what was begun")
        _judge(response.status, url)
        start, total = _extent(response, have)
        if total is not None and total > self.settings.max_bytes:
            raise too_large(self.settings, total)
        part = _Part(url=self.location, validator=_validator(response.headers), name=_name(response.headers, url))
        self.state.write_text(json.dumps([part.url, part.validator, part.name]), encoding="utf-8")
        size = self._write(response, start)
        if total is not None and size != total:
            raise _Interrupted(f"{size} of {total} bytes came")
        return Download(path=self.body, name=part.name)

    def _write(self, response: http.client.HTTPResponse, start: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.body, flags, 0o666), "wb", buffering=0) as out:
            out.truncate(start)
            out.seek(start)
            size = start
            while chunk := response.read1(CHUNK_BYTES):
                self.breathe()
                size += len(chunk)
                if size > self.settings.max_bytes:
                    raise too_large(self.settings, size)
                view = memoryview(chunk)
                while view:
                    view = view[out.write(view) :]
        return size

    def _read_part(self) -> _Part:
        try:
            url, validator, name = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return _Part(url=self.location)
        return _Part(url=url, validator=validator, name=name) if url == self.location else _Part(url=self.location)


class _Http(http.client.HTTPConnection):
    """Connects to an address that was checked, whatever the name means a moment later."""

    def __init__(self, url: Url, address: str, timeout: float) -> None:
        super().__init__(url.host, url.port, timeout=timeout)
        self.address = address

    def connect(self) -> None:
        self.sock = socket.create_connection((self.address, self.port), self.timeout)


class _Https(_Http):
    """The same with TLS; the certificate must be the host's."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _connect(url: Url, settings: SourceSettings, *, trusted: bool) -> http.client.HTTPConnection:
    """Look a host up and connect to the first of its addresses that may be, and can be, connected to."""
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise SourceError(f"the host {url.host} has no valid name", code=Code.SOURCE_NOT_FOUND) from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    allowed = [each for each in addresses if may_connect(url.host, each, settings, trusted=trusted)]
    if not allowed:
        raise SourceError(
            f"{url.host} is at an address that is not public; settings.sources.hosts must name it",
            code=Code.SOURCE_ACCESS_DENIED,
        )
    kind = _Https if url.scheme == "https" else _Http
    failure: OSError | None = None
    for address in allowed:
        connection = kind(url, address, settings.http_timeout_seconds)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure or OSError("no address")


def _ask(
    connection: http.client.HTTPConnection, url: Url, have: int, validator: str, *, method: str = "GET"
) -> http.client.HTTPResponse:
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"ingestd/{ingestd.__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    connection.request(method, url.target, headers=headers)
    return connection.getresponse()


def _moved(url: Url, to: str, settings: SourceSettings, *, trusted: bool) -> Url:
    """Where a redirect leads, judged as the request's own URL was: it must not lead where the request may not."""
    try:
        there = urllib.parse.urljoin(url.text, to)
    except ValueError:
        there = to
    return parse_url(there, settings, trusted=trusted)


def _judge(status: int, url: Url) -> None:
    said = f"{url.host} answered with status {status}"
    if status in _GONE:
        raise SourceError(said, code=Code.SOURCE_NOT_FOUND)
    if status in _DENIED:
        raise SourceError(said, code=Code.SOURCE_ACCESS_DENIED)
    if status in (408, 425, 429) or status >= 500:
        raise _Interrupted(said)
    if status not in (200, 206):
        raise SourceError(said, code=Code.SOURCE_DOWNLOAD_INTERRUPTED)


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where in the file this answer begins, and how long the whole is if the server says so (RFC 9110, 14.4)."""
    if response.status == 206:
        said = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not said or int(said[1]) != have:
            raise _Interrupted("the server sent another part than was asked for")
        return have, None if said[3] == "*" else int(said[3])
    return 0, response.length


def _validator(headers: email.message.Message) -> str:
    """What names this very content: a strong ETag, or the time of its last change (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag", "")
    return str(tag if tag.startswith('"') else headers.get("Last-Modified", ""))


def _name(headers: email.message.Message, url: Url) -> str:
    """The file's name: what the server calls it, or the end of the URL; never more than a name."""
    try:
        said = str((headers.get_filename() if headers.get("Content-Disposition") else None) or "")
        disposition = said.encode("utf-8", "surrogateescape")
    except (LookupError, ValueError, TypeError, AttributeError):  # whatever Python's email says of a broken header
        disposition = b""
    path = urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(url.text).path.rstrip("/"))
    for raw in (disposition, path):
        name = re.sub(rb"[\x00-\x1f\x7f]", b"_", raw.replace(b"\\", b"/").rpartition(b"/")[2])[-NAME_BYTES:]
        if name.strip(b". "):
            return os.fsdecode(name)
    return "download"


def _lost(error: Exception) -> IngestError | _Interrupted:
    """Tell what will not mend itself from what may."""
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_FAIL):
        return SourceError(f"the host is not known: {error.strerror}", code=Code.SOURCE_NOT_FOUND)
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceError(
            f"the server's certificate is not valid: {error.verify_message}", code=Code.SOURCE_DOWNLOAD_INTERRUPTED
        )
    return _Interrupted(str(error) or type(error).__name__)
