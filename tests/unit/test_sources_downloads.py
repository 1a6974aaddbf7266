"""Fetching from a real HTTP server in a thread, which cuts, redirects and lies as a test tells it."""

import hashlib
import http.server
import io
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from pathlib import Path

import pytest

from ingestd.config import SourceSettings, ToolSettings, UnpackSettings
from ingestd.errors import Code, IngestError, PolicyError, RequestError, SourceError
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources import Received, Source, receive
from ingestd.sources.downloads import Download, _name, download
from ingestd.sources.locations import parse_url, shown
from ingestd.tools.pool import Pool

BODY = bytes(range(256)) * 1000
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """Answers each request with the next of `answers`, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[Message] = []
        self.paths: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.headers)
                outer.paths.append(self.path)
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._server.server_address[1]

    def url(self, path: str = "/file.bin", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def send(
    body: bytes = BODY, *, status: int = 200, only: int | None = None, length: int | None = None, **headers: str
) -> Answer:
    """Answer with a body, of which only the first bytes are sent before the connection is cut."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body if only is None else body[:only])

    return answer


def said(status: int, headers: dict[str, str]) -> Answer:
    """Answer with these headers and no others, and the body."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        lines = [f"HTTP/1.0 {status} x", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        handler.wfile.write("\r\n".join(lines).encode("latin-1") + BODY)

    return answer


def ranged(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Answer as a server does that knows ranges and whose content is still the same."""
    assert handler.headers["If-Range"] == '"v1"'
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    said = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    send(BODY[start:], status=206, Content_Range=said, ETag='"v1"')(handler)


def redirect(to: str) -> Answer:
    return send(b"", status=302, Location=to)


async def fetch(
    server: Server, folder: Path, *, attempts: int = 3, trusted: bool = True, **settings: object
) -> Download:
    chosen = SourceSettings.model_validate({"http_attempts": attempts, "http_timeout_seconds": 2, **settings})
    return await download(server.url(), folder, settings=chosen, trusted=trusted, first_pause_seconds=0.001)


async def test_a_file_is_fetched(server: Server, tmp_path: Path) -> None:
    server.answers = [send()]

    fetched = await fetch(server, tmp_path)

    assert (BODY, "file.bin") == (fetched.path.read_bytes(), fetched.name)
    assert "identity" == server.asked[0]["Accept-Encoding"]


async def test_a_cut_download_is_taken_up_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.answers = [send(only=100_000, ETag='"v1"'), ranged]

    fetched = await fetch(server, tmp_path)

    assert BODY == fetched.path.read_bytes()
    assert [None, "bytes=100000-"] == [headers["Range"] for headers in server.asked]


async def test_a_restarted_service_goes_on_as_well(server: Server, tmp_path: Path) -> None:
    server.answers = [send(only=100_000, ETag='"v1"')]
    with pytest.raises(SourceError) as caught:
        await fetch(server, tmp_path, attempts=1)
    assert Code.SOURCE_DOWNLOAD_INTERRUPTED == caught.value.code
    server.answers = [ranged]

    fetched = await fetch(server, tmp_path)

    assert (BODY, "file.bin") == (fetched.path.read_bytes(), fetched.name)


async def test_a_file_that_changed_is_fetched_from_its_beginning(server: Server, tmp_path: Path) -> None:
    other = b"other" * 1000
    server.answers = [send(only=100_000, ETag='"v1"'), send(other, ETag='"v2"')]

    fetched = await fetch(server, tmp_path)

    assert other == fetched.path.read_bytes()


async def test_what_nothing_names_is_fetched_from_its_beginning(server: Server, tmp_path: Path) -> None:
    server.answers = [send(only=100_000, ETag='W/"weak"'), send()]

    fetched = await fetch(server, tmp_path)

    assert BODY == fetched.path.read_bytes()
    assert server.asked[1]["Range"] is None


async def test_a_range_that_is_past_the_end_starts_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [send(only=100_000, ETag='"v1"'), send(b"", status=416), send()]

    fetched = await fetch(server, tmp_path)

    assert BODY == fetched.path.read_bytes()
    assert [None, "bytes=100000-", None] == [headers["Range"] for headers in server.asked]


async def test_another_part_than_was_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    wrong = send(BODY[5:], status=206, Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}", ETag='"v1"')
    server.answers = [send(only=100_000, ETag='"v1"'), wrong, ranged]

    assert BODY == (await fetch(server, tmp_path)).path.read_bytes()


async def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [send(b"", status=503), send(b"", status=429), send()]

    assert BODY == (await fetch(server, tmp_path)).path.read_bytes()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, Code.SOURCE_NOT_FOUND),
        (410, Code.SOURCE_NOT_FOUND),
        (401, Code.SOURCE_ACCESS_DENIED),
        (403, Code.SOURCE_ACCESS_DENIED),
        (400, Code.SOURCE_DOWNLOAD_INTERRUPTED),
    ],
)
async def test_a_plain_no_is_not_asked_again(server: Server, tmp_path: Path, status: int, code: Code) -> None:
    server.answers = [send(b"", status=status)]

    with pytest.raises(SourceError) as caught:
        await fetch(server, tmp_path)

    assert (code, 1) == (caught.value.code, len(server.asked))


async def test_a_server_that_is_silent_is_given_up(server: Server, tmp_path: Path) -> None:
    done = threading.Event()

    def silent(_: http.server.BaseHTTPRequestHandler) -> None:
        done.wait(5)

    server.answers = [silent]

    with pytest.raises(SourceError) as caught:
        await fetch(server, tmp_path, attempts=1, http_timeout_seconds=0.1)
    done.set()

    assert Code.SOURCE_DOWNLOAD_INTERRUPTED == caught.value.code


async def test_a_host_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        await download(
            "http://no-such-host.invalid/a",
            tmp_path,
            settings=SourceSettings(http_attempts=1),
            trusted=False,
            first_pause_seconds=0,
        )

    assert caught.value.code in {Code.SOURCE_NOT_FOUND, Code.SOURCE_DOWNLOAD_INTERRUPTED}


@pytest.mark.parametrize("answer", [send(), send(length=10**9, only=10)])
async def test_more_than_is_allowed_is_refused(server: Server, tmp_path: Path, answer: Answer) -> None:
    server.answers = [answer]

    with pytest.raises(PolicyError) as caught:
        await fetch(server, tmp_path, max_bytes=1000)

    assert Code.POLICY_SIZE_OVER_LIMIT == caught.value.code


async def test_more_than_is_allowed_is_refused_where_no_length_is_said(server: Server, tmp_path: Path) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(BODY)

    server.answers = [endless]

    with pytest.raises(PolicyError):
        await fetch(server, tmp_path, max_bytes=1000)


NOT_PUBLIC = (
    "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "127.0.0.1", "0.0.0.0",
    "10.1.2.3", "172.16.0.1", "192.168.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254",
    "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "ff02::1", "::ffff:168.63.129.16", "64:ff9b::168.63.129.16",
)  # fmt: skip
"""Addresses of clouds' metadata, of this machine and of its networks, plain and wrapped."""


class TestWhereItMayGo:
    async def test_a_redirect_is_followed(self, server: Server, tmp_path: Path) -> None:
        server.answers = [redirect("/other/name.zip"), send()]

        fetched = await fetch(server, tmp_path)

        assert "name.zip" == fetched.name
        assert ["/file.bin", "/other/name.zip"] == server.paths

    async def test_redirects_without_end_are_not(self, server: Server, tmp_path: Path) -> None:
        server.answers = [redirect("/again")]

        with pytest.raises(SourceError) as caught:
            await fetch(server, tmp_path)

        assert (Code.SOURCE_DOWNLOAD_INTERRUPTED, 6) == (caught.value.code, len(server.asked))

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://10.0.0.1/a", "http://other/a"])
    async def test_a_redirect_may_not_lead_where_a_request_may_not(
        self, server: Server, tmp_path: Path, to: str
    ) -> None:
        server.answers = [redirect(to)]

        with pytest.raises(RequestError) as caught:
            await fetch(server, tmp_path, trusted=False, hosts=["127.0.0.1"])

        assert Code.REQUEST_UNSUPPORTED_SOURCE == caught.value.code

    async def test_a_name_for_an_address_that_is_not_public_is_refused(self, server: Server, tmp_path: Path) -> None:
        server.answers = [send()]

        with pytest.raises(SourceError) as caught:
            await download(server.url(host="localhost"), tmp_path, settings=SourceSettings(), trusted=False)

        assert (Code.SOURCE_ACCESS_DENIED, []) == (caught.value.code, server.asked)

    @pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1"])
    async def test_an_address_in_disguise_is_refused(self, server: Server, tmp_path: Path, host: str) -> None:
        server.answers = [send()]

        with pytest.raises(IngestError):
            await download(server.url(host=host), tmp_path, settings=SourceSettings(http_attempts=1), trusted=False)

        assert [] == server.asked

    @pytest.mark.parametrize("address", NOT_PUBLIC)
    async def test_an_address_that_is_not_public_is_refused_however_it_is_written(
        self, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(RequestError):
            parse_url(f"http://{host}/latest/meta-data/", SourceSettings(), trusted=False)

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        found = [(family, socket.SOCK_STREAM, 6, "", (address, 80))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(SourceError) as caught:
            await download("http://metadata.example.org/", tmp_path, settings=SourceSettings(), trusted=False)

        assert Code.SOURCE_ACCESS_DENIED == caught.value.code

    @pytest.mark.parametrize(
        "location",
        [
            "http://good.example@169.254.169.254/",
            "http://169.254.169.254\\@good.example/",
            "http://good.example:80@169.254.169.254/",
            "http://169.254.169.254#@good.example/",
            "http://169.254.169.254?@good.example/",
            "http://169.254.169.254\t/",
            "http://169.254.169.254./",
            "http://\uff11\uff16\uff19.254.169.254/",
            "http://169\u3002254\u3002169\u3002254/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1%25eth0]/",
            "http:169.254.169.254/",
            "http:///169.254.169.254/",
            "http://@169.254.169.254/",
        ],
    )
    def test_no_trick_of_a_url_leads_where_it_may_not(self, location: str) -> None:
        with pytest.raises(RequestError):
            parse_url(location, SourceSettings(), trusted=False)

    @pytest.mark.parametrize("location", ["http://0xa9fea9fe/", "http://2852039166/", "http://0251.0376.0251.0376/"])
    async def test_what_the_resolver_takes_for_an_address_is_one(self, tmp_path: Path, location: str) -> None:
        with pytest.raises(SourceError):
            await download(location, tmp_path, settings=SourceSettings(http_attempts=1), trusted=False)

    async def test_a_named_host_may_be_anywhere(self, server: Server, tmp_path: Path) -> None:
        server.answers = [send()]

        fetched = await fetch(server, tmp_path, trusted=False, hosts=["127.0.0.1"])

        assert BODY == fetched.path.read_bytes()


class TestNames:
    @pytest.mark.parametrize(
        ("disposition", "path", "name"),
        [
            ('attachment; filename="a b.zip"', "/x", "a b.zip"),
            ("attachment; filename*=UTF-8''%C3%A9.zip", "/x", "\u00e9.zip"),
            ('attachment; filename="../../etc/passwd"', "/x", "passwd"),
            ('attachment; filename="..\\\\..\\\\evil.exe"', "/x", "evil.exe"),
            ('attachment; filename=".."', "/x/y.tar", "y.tar"),
            ("", "/a/%2e%2e%2fpasswd", "passwd"),
            ("", "/a/b%00c%0A", "b_c_"),
            ("", "/", "download"),
            ("", "/..", "download"),
            ("", "/" + "x" * 300, "x" * 255),
        ],
    )
    def test_a_name_is_never_more_than_a_name(self, disposition: str, path: str, name: str) -> None:
        headers = Message()
        if disposition:
            headers["Content-Disposition"] = disposition

        assert name == _name(headers, parse_url(f"http://example.org{path}", SourceSettings(), trusted=False))


class TestReceive:
    async def receive(self, server: Server, folder: Path, checksum: Digest | None = None) -> list[Received]:
        async def known(_: Sequence[str]) -> frozenset[str]:
            return frozenset()

        async with Pool(ToolSettings(processes=1), scratch=folder) as pool:
            windows = receive(
                Source(location=server.url("/a.zip"), checksum=checksum),
                folder / "into",
                settings=SourceSettings(),
                unpack=UnpackSettings(),
                algorithm=DigestAlgorithm.SHA512,
                pool=pool,
                trusted=True,
                known=known,
                scratch=folder / "scratch",
            )
            return [one async for window in windows for one in window]

    async def test_an_archive_is_unpacked_as_a_local_one_is(self, server: Server, tmp_path: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("wrapped/metadata/metadata.csv", "m")
            archive.writestr("wrapped/objects/a", "a")
        server.answers = [send(out.getvalue())]
        value = hashlib.sha1(out.getvalue()).hexdigest()

        received = await self.receive(
            server, tmp_path, Digest(algorithm=DigestAlgorithm.SHA1, value=value, calculated_at=now())
        )

        assert ["metadata", "metadata/metadata.csv", "objects", "objects/a"] == [one.path for one in received]
        assert [] == list((tmp_path / "scratch").iterdir())

    async def test_a_file_is_received_under_the_servers_name(self, server: Server, tmp_path: Path) -> None:
        server.answers = [send(b"hello", Content_Disposition='attachment; filename="notes.txt"')]

        (received,) = await self.receive(server, tmp_path)

        assert "notes.txt" == received.path
        assert b"hello" == (tmp_path / "into" / "notes.txt").read_bytes()

    async def test_what_is_not_its_checksum_is_refused_and_not_kept(self, server: Server, tmp_path: Path) -> None:
        server.answers = [send(b"hello")]

        with pytest.raises(SourceError) as caught:
            await self.receive(
                server, tmp_path, Digest(algorithm=DigestAlgorithm.SHA256, value="0" * 64, calculated_at=now())
            )

        assert Code.SOURCE_CHECKSUM_MISMATCH == caught.value.code
        assert [] == list((tmp_path / "into").iterdir())


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://host/a.zip?sig=x#y", "https://host/a.zip?…"),
        ("https://host/a.zip#token=x", "https://host/a.zip#…"),
        ("https://me:pass@host/a", "https://…@host/a"),
        ("https://token@host/a", "https://…@host/a"),
        ("https://me:pa/ss@host/a", "https://…@host/a"),
        ("https://me:p?a#ss@host/a", "https://…@host/a"),
        ("https:/me:pass@host/a", "https:/…@host/a"),
        ("https:me:p@ss@host/a", "https:…@host/a"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("s3://me:pass@bucket/key", "s3://…@bucket/key"),
        ("/data/a@b?c#d", "/data/a@b?c#d"),
    ],
)
def test_what_is_told_of_a_location_has_no_secret(location: str, told: str) -> None:
    assert told == shown(location)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Disposition": "attachment; filename*=utf-7''+2AA-"},
        {"Content-Disposition": "attachment; filename*=none''%ff; filename*0*=idna''xn--%ff"},
        {"Content-Disposition": "\xff" * 500},
        {"ETag": '"' + "\xff" * 9000 + '"'},
        {"Last-Modified": "x" * 60_000},
        {"Content-Type": "a; b=" + ";" * 5000},
    ],
)
async def test_whatever_a_server_says_of_a_file_it_is_fetched(
    server: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.answers = [said(200, headers)]

    fetched = await fetch(server, tmp_path)

    assert BODY == fetched.path.read_bytes()
    os.fsencode(fetched.name)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"Location": "http://[::1"}),
        (302, {"Location": "//[/"}),
        (302, {"Location": "http://a:99999999/"}),
        (302, {"Location": "http://\xff\xfe/"}),
        (302, {"Location": ""}),
        (200, {"Content-Length": "9" * 5000}),
        (200, {"Content-Length": "-1"}),
        (206, {"Content-Range": f"bytes 0-{'9' * 5000}/{'9' * 5000}"}),
        (200, {"X": "a" * 70_000}),
        (99999, {}),
    ],
)
async def test_what_a_server_says_wrongly_is_an_error_with_words(
    server: Server, tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    server.answers = [said(status, headers)]

    try:
        fetched = await fetch(server, tmp_path, attempts=1)
    except IngestError as error:
        told = error.detail and error.remediation
    else:
        told = str(BODY == fetched.path.read_bytes())

    assert told
