"""Where a source is, and whether it may be read at all: answered before anything is accepted.

The rule for what is not trusted (a request from the broker): nothing outside the configured roots, judged by real
paths, and nothing at all where no root is configured. It is answered before anybody learns whether the path exists.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.
# ruff: noqa: PTH100, PTH119

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingestd.errors import Code, RequestError, SourceError, Violation
from ingestd.sources.findings import failure
from ingestd.sources.kinds import archive_in
from ingestd.sources.names import NameRefused, open_plain, split
from ingestd.sources.records import Checked, Kind, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingestd.config import SourceSettings
    from ingestd.keeping import CredentialSettings
    from ingestd.messages import RequestSource

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")

_NOT_IN_NAME = re.compile(r"[\x00-\x1f\x7f?]")
_OBJECTS = ("s3://", "az://", "abfs://", "abfss://", "gs://")
_SAME = {"abfs": "az", "abfss": "az"}

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_OF_THE_MACHINE = frozenset({ipaddress.IPv4Address("168.63.129.16")})
"""Azure's own service to each virtual machine, which knows its secrets, at an address that looks public."""
_LIKE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/*")
_END = re.compile("[/?#]")
_HOST = re.compile("[^:@]*(?::[0-9]*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Url:
    """An `http(s)` URL that may be fetched. `target` is what goes on the request line."""

    scheme: str
    host: str
    port: int
    target: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectUrl:
    """An object, or all below a prefix, that may be fetched. `bucket` is a URL; `folder` where only that is meant."""

    bucket: str
    key: str
    folder: bool
    account: str
    text: str


def source_of(asked: RequestSource, credentials: Mapping[str, CredentialSettings]) -> Source:
    """Give what a request asks for, with the credentials that it names. Raises `request.unsupported_source`."""
    if asked.credentials and asked.credentials not in credentials:
        known = ", ".join(sorted(credentials)) or "none are configured"
        violation = Violation(
            path="source.credentials", rule="known", expected=f"one of: {known}", actual=asked.credentials
        )
        raise RequestError(
            f"there are no credentials named {asked.credentials!r}",
            code=Code.REQUEST_UNSUPPORTED_SOURCE,
            violations=(violation,),
        )
    named = credentials[asked.credentials] if asked.credentials else None
    return Source(location=asked.location, checksum=asked.checksum, credentials=named)


async def check(source: Source, settings: SourceSettings, *, trusted: bool) -> Checked:
    """See what a source is and that it may be read, without reading it.

    A URL is judged by its words alone: nothing is fetched. Raises `RequestError` (`request.unsupported_source`, or
    `request.schema_invalid` for a folder with a checksum), `SourceError` (`source.not_found`, `source.access_denied`)
    or `PolicyError` (`policy.size_over_limit`).
    """
    if is_remote(source.location):
        url = parse_url(source.location, settings, trusted=trusted)
        name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(url.text).path)) or url.host
        return Checked(kind=Kind.REMOTE, name=name)
    if is_object(source.location):
        found = parse_object_url(source.location, settings, trusted=trusted)
        return Checked(
            kind=Kind.REMOTE, name=(found.key or urllib.parse.urlsplit(found.bucket).netloc).rpartition("/")[2]
        )
    return await asyncio.to_thread(_check_local, source, settings, trusted)


def is_remote(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def is_object(location: str) -> bool:
    return location.lower().startswith(_OBJECTS)


def parse_object_url(location: str, settings: SourceSettings, *, trusted: bool) -> ObjectUrl:
    """Read the URL of an object store and judge it.

    What is not trusted may read below the URLs of `sources.buckets` alone: this service's credentials are not the
    requester's.
    """
    scheme, _, rest = location.partition("://")
    scheme = _SAME.get(scheme.lower(), scheme.lower())
    container, _, path = rest.partition("/")
    bucket, at, host = container.partition("@")
    if scheme not in settings.schemes:
        raise _unsupported(f"{scheme}://…", f"one of the schemes {', '.join(settings.schemes)}")
    if at and not trusted:
        # The credentials would be shown to whichever account the requester chose.
        raise _unsupported(f"{scheme}://…", "a URL without an account: the credentials have one")
    if not bucket or _NOT_IN_NAME.search(location) or (at and scheme != "az"):
        raise _unsupported(f"{scheme}://…", f"{scheme}://BUCKET/KEY, and no password in it")
    key = urllib.parse.unquote(path, errors="surrogateescape")
    try:
        parts = split(os.fsencode(key)) if key else ()
    except NameRefused as error:
        raise _unsupported(location, error.expected) from error
    key = os.fsdecode(b"/".join(parts))
    allowed = [_below_of(each) for each in settings.buckets]
    asked = f"{scheme}://{bucket}/{key}/"
    if (allowed or not trusted) and not any(asked.startswith(each) for each in allowed):
        raise _unsupported(location, "a URL below one of those that settings.sources.buckets names")
    folder = not key or location.endswith("/")
    account = host.partition(".")[0]
    return ObjectUrl(bucket=f"{scheme}://{bucket}", key=key, folder=folder, account=account, text=location)


def _below_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{_SAME.get(scheme.lower(), scheme.lower())}://{urllib.parse.unquote(rest).rstrip('/')}/"


def parse_url(location: str, settings: SourceSettings, *, trusted: bool) -> Url:
    """Read a URL and judge it: scheme, host, and an address given in place of a host."""
    try:
        parts = urllib.parse.urlsplit(location)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host = host.encode("idna").decode("ascii") if not host.isascii() else host
        target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        target += "?" + urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._") if parts.query else ""
    except (ValueError, UnicodeError) as error:
        raise _unsupported(location, "a valid URL") from error
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or scheme not in settings.schemes:
        raise _unsupported(location, f"one of the schemes {', '.join(settings.schemes)}")
    if not host or _NOT_IN_URL.search(location) or len(host) > 253:
        raise _unsupported(location, "a URL with a host and without spaces")
    if parts.username is not None or parts.password is not None:
        raise _unsupported(f"{scheme}://…@{host}", "a URL without a user name and password")
    if settings.hosts and host not in _hosts(settings):
        raise _unsupported(location, f"one of the hosts {', '.join(settings.hosts)}")
    if _is_address(host) and not may_connect(host, host, settings, trusted=trusted):
        raise _unsupported(location, "a public address, or one that settings.sources.hosts names")
    port = port if port is not None else {"http": 80, "https": 443}[scheme]
    return Url(scheme=scheme, host=host, port=port, target=target, text=location)


def may_connect(host: str, address: str, settings: SourceSettings, *, trusted: bool) -> bool:
    """Whether `host` may be fetched from `address`: any that is public, others only where the host is named."""
    return trusted or host in _hosts(settings) or is_public(address)


def is_public(address: str) -> bool:
    """Whether an IP address is of the public network; one that wraps another (mapped, 6to4, Teredo, NAT64) is what it
    wraps.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = _wrapped(ip) if isinstance(ip, ipaddress.IPv6Address) else None
    ip = inner or ip
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip in _OF_THE_MACHINE)


def _wrapped(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _hosts(settings: SourceSettings) -> frozenset[str]:
    return frozenset(host.lower().rstrip(".").strip("[]") for host in settings.hosts)


def local_path(location: str, settings: SourceSettings, *, trusted: bool) -> tuple[str, str]:
    """Give the real path of a path or `file` URL and the name it was called by. Raises `request.unsupported_source`."""
    path = _plain_path(location, settings)
    if not path.startswith("/") and not trusted:
        raise _unsupported(location, "an absolute path")
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise _unsupported(location, "a path that can be resolved") from error
    if settings.roots or not trusted:
        roots = [os.path.realpath(root) for root in settings.roots]
        if not any(f"{real}/".startswith(root.rstrip("/") + "/") for root in roots):
            raise _unsupported(location, "one of the folders that settings.sources.roots names, or a path below it")
    return real, os.path.basename(os.path.abspath(path)) or "root"


def _plain_path(location: str, settings: SourceSettings) -> str:
    scheme = _SCHEME.match(location)
    path = location
    if scheme and scheme[1].lower() != "file":
        raise _unsupported(location, f"one of the schemes {', '.join(settings.schemes)}")
    if "file" not in settings.schemes:
        raise _unsupported(location, f"one of the schemes {', '.join(settings.schemes)}")
    if scheme:
        host, slash, rest = location[scheme.end() :].partition("/")
        if host.lower() not in ("", "localhost"):
            raise _unsupported(location, "a file URL of this machine: file:///PATH")
        path = os.fsdecode(_unquote(slash + rest))
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise _unsupported("…", "a path that can be written in bytes") from error
    if not raw or b"\0" in raw:
        raise _unsupported(location.replace("\0", "?"), "a path without NUL bytes")
    return path


def _unquote(text: str) -> bytes:
    try:
        return urllib.parse.unquote_to_bytes(os.fsencode(text))
    except UnicodeEncodeError as error:
        raise _unsupported("…", "a file URL that can be written in bytes") from error


def _check_local(source: Source, settings: SourceSettings, trusted: bool) -> Checked:
    real, name = local_path(source.location, settings, trusted=trusted)
    try:
        kind, size = _look(real, source.location)
    except OSError as error:
        raise unreadable(error, source.location) from error
    if kind is Kind.FOLDER and source.checksum is not None:
        raise checksum_of_folder()
    if size is not None and size > settings.max_bytes:
        raise too_large(settings, size)
    return Checked(kind=kind, name=name, path=Path(real), size_bytes=size)


def _look(real: str, location: str) -> tuple[Kind, int | None]:
    fd = open_plain(real, os.O_PATH)
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    # Only what is known to be a folder or a file is opened: to open a device can do things.
    if stat.S_ISDIR(mode):
        fd = open_plain(real, os.O_RDONLY | os.O_DIRECTORY)
        os.close(fd)
        return Kind.FOLDER, None
    if not stat.S_ISREG(mode):
        raise _unsupported(location, "a folder, a file or an archive, not a device, fifo or socket")
    fd = open_plain(real, os.O_RDONLY)
    try:
        return Kind.ARCHIVE if archive_in(fd) else Kind.FILE, os.fstat(fd).st_size
    finally:
        os.close(fd)


def unreadable(error: OSError, location: str) -> SourceError:
    """Word an error of the operating system at `location`."""
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
    code = Code.SOURCE_NOT_FOUND if gone else Code.SOURCE_ACCESS_DENIED
    said = location.encode("utf-8", errors="backslashreplace").decode()
    return SourceError(f"{said}: {error.strerror or error}", code=code)


def checksum_of_folder() -> RequestError:
    violation = Violation(path="source.checksum", rule="no_checksum_of_a_folder", expected="a file or an archive")
    return RequestError("a folder has no checksum: leave it out, or send an archive", violations=(violation,))


def too_large(settings: SourceSettings, size_bytes: int) -> Exception:
    violation = Violation(
        path="source",
        rule=Code.POLICY_SIZE_OVER_LIMIT.value,
        expected=f"at most {settings.max_bytes} bytes (sources.max_bytes)",
        actual=str(size_bytes),
    )
    detail = f"the source has {size_bytes} bytes, {settings.max_bytes} are allowed"
    return failure(Code.POLICY_SIZE_OVER_LIMIT, detail, violations=[violation])


def shown(location: str) -> str:
    """Give a location as it may be told: a URL without user name, password, and what follows its path, which may be a
    signature. A password with a slash makes a URL that is none, and is not told either.
    """
    said = location.encode("utf-8", errors="backslashreplace").decode()
    scheme = _LIKE_URL.match(said)
    if scheme is None:
        return said
    rest = said[scheme.end() :]
    before, at, after = rest.rpartition("@")
    if at and ("@" in _END.split(rest)[0] or not _HOST.fullmatch(_END.split(before)[0])):
        rest = f"…@{after}"
    return scheme[0] + re.sub(r"([?#]).*", r"\1…", rest, count=1, flags=re.DOTALL)


def _unsupported(location: str, expected: str) -> RequestError:
    said = shown(location)
    violation = Violation(path="source.location", rule="supported", expected=expected, actual=said)
    return RequestError(
        f"the source cannot be read from here: {expected} is needed",
        code=Code.REQUEST_UNSUPPORTED_SOURCE,
        violations=(violation,),
    )
