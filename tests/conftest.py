"""What every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.rabbit import RabbitMissingError, RabbitNode

settings.register_profile("suite", deadline=None)  # beside others on a busy machine, one slow run says nothing
settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parent.parent
BESIDE = REPOSITORY.parent / "shared"


for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:  # what a shell starts with `&`, or nohup(1), inherits that
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the person who runs them has set."""
    for name in [name for name in os.environ if name.startswith("INGESTD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> Iterator[None]:
    """What a command sets up for its log ends with the test: its standard error may be closed by then."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of sample transfers and XML schemas beside the repository."""
    if not BESIDE.is_dir():
        pytest.skip("no folder ../shared beside the repository: its sample transfers and schemas are not there")
    return BESIDE


@pytest.fixture(scope="session")
def rabbit(request: pytest.FixtureRequest) -> Iterator[RabbitNode]:
    """Give a running private RabbitMQ, one for the whole session; a test makes its own vhost or queues in it.

    Without RabbitMQ the test fails: the message contract is not a matter of what happens to be installed.
    Its folder is kept when tests failed, and named at the end.
    """
    # Its own short path: the names of pytest's folders grow, and those of Erlang's sockets may not.
    folder = Path(tempfile.mkdtemp(prefix="ingestd-rabbit-"))
    failed_before = request.session.testsfailed
    try:
        with RabbitNode(folder) as node:
            yield node
    except RabbitMissingError as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.fail(str(error), pytrace=False)
    if request.session.testsfailed > failed_before:
        print(f"\nRabbitMQ's logs are kept in {folder / 'log'}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rabbit_url(rabbit: RabbitNode) -> str:
    """Give the URL of the session's node; it is started again if a test left it stopped."""
    return rabbit.start().url
