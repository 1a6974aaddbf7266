"""The wheel, installed where there is nothing else of the repository, does the work."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.aips import open_aip, stored_path
from tests.acceptance.corpora import SMALL_FILES, small_transfer
from tests.acceptance.program import Program
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.tool]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr

    (built,) = folder.glob("*.whl")
    return built


def in_package(*patterns: str) -> set[str]:
    package = REPOSITORY / "src" / "ingestd"
    return {f"ingestd/{path.relative_to(package)}" for pattern in patterns for path in package.rglob(pattern)}


def test_the_wheel_holds_everything_that_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())

    needed = in_package("*.py", "*.sql", "*.xsd", "*.toml", "*.csv", "*.html")
    needed |= {f"ingestd/_data/schemas/{path.name}" for path in (REPOSITORY / "schemas").iterdir()}
    needed |= {"ingestd/_data/workflow.json"}
    assert needed - names == set()
    assert {"ingestd/fpr/data/rules-characterization.csv", "ingestd/journal/package.sql"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert [name for name in names if not name.startswith(("ingestd/", "ingestd-"))] == []


def test_the_installed_wheel_ingests_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "installed"
    venv.create(home, with_pip=False)
    (site,) = (home / "lib").glob("python*/site-packages")
    dependencies = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ingestd = Program(tmp_path)
    ingestd.command = (str(home / "bin" / "ingestd"),)
    ingestd.search_path = None
    where = subprocess.run(
        [home / "bin" / "python", "-c", "import ingestd; print(ingestd.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert Path(where.stdout.strip()).is_relative_to(home)

    run = ingestd("ingest", small_transfer(tmp_path / "Letters"), "--output", tmp_path / "output", "--json")
    checked = ingestd("workflow", "check")

    assert run.code == 0, run.err
    aip = open_aip(stored_path(run.result), tmp_path / "opened")
    assert len(aip.of("original")) == SMALL_FILES
    assert run.result["workflow_digest"] in checked.out
    assert f"{home}/" in checked.out
