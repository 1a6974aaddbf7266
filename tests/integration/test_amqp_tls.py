"""The broker over TLS, with certificates on both sides: a real RabbitMQ, and an authority that lives for this test."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
from pydantic import SecretStr

from ingestd.config import AmqpSettings
from ingestd.errors import Code, DependencyError, IngestError, SystemFault
from ingestd.transport.amqp.connection import connected
from tests.acceptance.program import wait_until
from tests.rabbit import RabbitNode, free_ports

pytestmark = [pytest.mark.broker]


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")  # fmt: skip


def certified(folder: Path, name: str, by: str) -> None:
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key",
            "-out", folder / f"{name}.csr")  # fmt: skip
    openssl("x509", "-req", "-days", "2", "-copy_extensions", "copy", "-in", folder / f"{name}.csr",
            "-CA", folder / f"{by}.pem", "-CAkey", folder / f"{by}.key", "-CAcreateserial",
            "-out", folder / f"{name}.pem")  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority(folder, "ours")
    authority(folder, "theirs")
    certified(folder, "broker", "ours")
    certified(folder, "worker", "ours")
    certified(folder, "stranger", "theirs")
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(certificates / "ours.pem"),
        "ssl_options.certfile": str(certificates / "broker.pem"),
        "ssl_options.keyfile": str(certificates / "broker.key"),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
    }
    with RabbitNode(tmp_path_factory.mktemp("rabbit"), settings=settings):
        wait_until(lambda: listens(port), "RabbitMQ's door for TLS, which opens after the other")
        yield f"amqps://guest:guest@127.0.0.1:{port}/"


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def settings(url: str, folder: Path, *, ca: str = "ours", worker: str = "worker", key: str = "") -> AmqpSettings:
    return AmqpSettings(
        url=SecretStr(url),
        ca_file=folder / f"{ca}.pem",
        certificate=folder / f"{worker}.pem" if worker else None,
        key=folder / f"{key or worker}.key" if worker else None,
    )


async def failure(settings: AmqpSettings) -> IngestError:
    with pytest.raises(IngestError) as caught:
        async with connected(settings, "test") as connection:
            await connection.channel()
    assert "guest:guest" not in f"{caught.value.detail} {caught.value.remediation}"
    return caught.value


async def test_both_sides_show_certificates_that_the_other_knows(url: str, certificates: Path) -> None:
    async with connected(settings(url, certificates), "test") as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(_message(), routing_key=queue.name)
        assert (await queue.get()).body == b"over TLS"


def _message() -> aio_pika.Message:
    return aio_pika.Message(b"over TLS")


@pytest.mark.parametrize("worker", ["", "stranger"])
async def test_a_worker_without_a_known_certificate_is_not_let_in(url: str, certificates: Path, worker: str) -> None:
    error = await failure(settings(url, certificates, worker=worker))

    assert isinstance(error, DependencyError)
    assert Code.DEPENDENCY_BROKER is error.code


async def test_a_broker_whose_certificate_is_not_known_is_not_talked_to(url: str, certificates: Path) -> None:
    error = await failure(settings(url, certificates, ca="theirs"))

    assert isinstance(error, DependencyError)
    assert "certificate verify failed" in error.detail


async def test_a_broker_under_another_name_is_not_talked_to(url: str, certificates: Path) -> None:
    error = await failure(settings(url.replace("127.0.0.1", "localhost"), certificates))

    assert isinstance(error, DependencyError)
    assert "localhost" in error.detail


@pytest.mark.parametrize(("broken", "named"), [({"ca": "none"}, "amqp.ca_file"), ({"key": "ours"}, "amqp.key")])
async def test_a_file_that_cannot_be_used_is_named(certificates: Path, broken: dict[str, str], named: str) -> None:
    error = await failure(settings("amqps://guest:guest@127.0.0.1:1/", certificates, **broken))

    assert isinstance(error, SystemFault)
    assert Code.SYSTEM_CONFIGURATION is error.code
    assert named in error.detail
