"""The policy document says what the registry does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestd.fpr.policy import generated, tables, versions_in
from ingestd.fpr.records import Tool
from ingestd.fpr.registry import Registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "preservation-policy.md"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def test_the_tables_of_the_document_are_those_of_the_registry(registry: Registry) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")

    expected = tables(registry, versions_in(document))

    assert expected == generated(document), "run: python -m ingestd.fpr.policy docs/preservation-policy.md"


def test_every_tool_that_a_debian_or_pypi_package_brings_was_seen(registry: Registry) -> None:
    versions = versions_in(DOCUMENT.read_text(encoding="utf-8"))

    unseen = {tool.id for tool in registry.active(Tool) if not versions[tool.id]}

    assert unseen == {"fits", "verapdf"}


def test_the_example_of_the_document_is_a_layer_that_loads(tmp_path: Path) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    (tmp_path / "example.toml").write_text(document.partition("```toml\n")[2].partition("```")[0])

    registry = Registry.load([tmp_path])

    assert registry.command("our-jp2") is not None
