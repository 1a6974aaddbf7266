"""What is shipped around the code agrees with it: settings named in deployment files, pinned requirements, the demo."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ingestd.config import ClamAVSettings, Settings
from ingestd.storage import Locations

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
LISTS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def without_defaults(value: str) -> str:
    """Give what compose makes of `${NAME:-default}` where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def pins(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, flags=re.MULTILINE))


def name_of(requirement: str) -> str:
    """Give the normalized name (PEP 503) of what a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def test_every_setting_in_compose_exists_and_is_valid() -> None:
    service = load(REPOSITORY / "compose.yaml")["services"]["ingestd"]
    settings = Settings.load(environ={name: without_defaults(value) for name, value in service["environment"].items()})

    assert settings.amqp.url.get_secret_value() == "amqp://ingestd:ingestd@rabbitmq:5672/"
    assert settings.all_locations["primary"] == "file:///srv/aips"
    opened = Locations.open(settings.all_locations, settings.default_location, settings.credentials)
    assert ["both", "copies", "primary"] == opened.names
    assert settings.sources.roots == (Path("/srv/transfers"),)
    assert settings.shutdown_seconds < int(service["stop_grace_period"].removesuffix("s"))


def test_every_setting_in_the_kubernetes_files_exists_and_is_valid() -> None:
    environ = load(KUBERNETES / "config.yaml")["data"] | load(KUBERNETES / "secret.example.yaml")["stringData"]
    settings = Settings.load(environ=environ)
    pod = load(KUBERNETES / "workers.yaml")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    clamd = next(iter(YAML(typ="safe").load_all((KUBERNETES / "clamd.yaml").read_text(encoding="utf-8"))))

    assert settings.clamav.address == f"{clamd['metadata']['name']}:3310"
    assert settings.shutdown_seconds < pod["terminationGracePeriodSeconds"]
    assert [settings.http_port] == [port["containerPort"] for port in container["ports"]]
    assert str(settings.data_dir) in mounts
    assert {str(root) for root in settings.sources.roots} <= mounts


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    compose = load(REPOSITORY / "compose.yaml")["services"]["ingestd"]

    assert int(users[-1].partition(":")[0]) > 0
    assert compose.get("user", users[-1]) == users[-1]


def test_no_service_of_kubernetes_leaks_into_the_settings() -> None:
    """Kubernetes would add INGESTD_METRICS_SERVICE_HOST and the like, which are no settings."""
    pod = load(KUBERNETES / "workers.yaml")["spec"]["template"]["spec"]

    assert pod["enableServiceLinks"] is False


def test_kustomization_names_the_files_that_are_there_but_no_examples() -> None:
    named = set(load(KUBERNETES / "kustomization.yaml")["resources"])
    there = {path.name for path in KUBERNETES.glob("*.yaml")}

    assert named == {name for name in there if ".example." not in name} - {"kustomization.yaml"}


def test_clamd_has_the_limits_that_the_settings_suppose() -> None:
    lines = (KUBERNETES / "clamd.conf").read_text(encoding="utf-8").splitlines()
    said = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    supposed = ClamAVSettings()

    assert said["AlertExceedsMax"] == "yes"
    for name, size in {
        "StreamMaxLength": supposed.max_stream_bytes,
        "MaxFileSize": supposed.max_file_bytes,
        "MaxScanSize": supposed.max_scan_bytes,
    }.items():
        assert said[name] == f"{size // 2**20}M"


@pytest.mark.parametrize("name", LISTS)
def test_every_requirement_is_pinned_and_hashed_and_names_no_index(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    requirements = re.split(r"\n(?=[a-z])", "\n".join(lines))

    assert requirements
    assert [one for one in requirements if "--hash=sha256:" not in one or "==" not in one] == []
    assert [line for line in lines if "://" in line or line.startswith("--")] == []


def test_the_lists_hold_what_the_project_names_and_agree_with_one_another() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {name_of(entry) for entry in project["dependencies"]}
    for_tests = {name_of(entry) for entry in project["optional-dependencies"]["dev"]}
    runtime, dev, build = (pins(name) for name in LISTS)

    assert named <= set(runtime)
    assert for_tests <= set(dev)
    assert runtime.items() <= dev.items()
    assert {name: dev[name] for name in build if name in dev} == {name: build[name] for name in build if name in dev}


def test_the_demo_transfer_is_small_and_holds_what_it_promises() -> None:
    transfer = REPOSITORY / "examples" / "demo-transfer"
    files = [path.relative_to(transfer) for path in transfer.rglob("*") if path.is_file()]
    names = [path.name for path in files]

    assert sum((transfer / path).stat().st_size for path in files) < 300_000
    assert {path.suffix for path in files} >= {
        ".txt",
        ".png",
        ".jpg",
        ".pdf",
        ".bmp",
        ".wav",
        ".aiff",
        ".xml",
        ".zip",
        ".csv",
    }
    assert Path("metadata/metadata.csv") in files
    assert any(" " in name and not name.isascii() for name in names)
