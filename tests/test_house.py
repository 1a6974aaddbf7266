"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from ingestd.app import load_workflow
from ingestd.config import Settings
from ingestd.errors import CATALOGUE, Code
from ingestd.handlers import HANDLERS
from ingestd.messages import ProcessingConfig
from ingestd.schemas import documents
from ingestd.workflow import ChoiceConfig
from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "ingestd"
LONGEST_MODULE = 450
CATALOGUES = {"errors.py": 520}
"""Modules that list what there is, one thing after the other, and how long they may be."""
TEXT = {".py", ".md", ".toml", ".json", ".yaml", ".yml", ".sql", ".html", ".csv", ".txt", ".cfg", ".sh", ""}


def files() -> Iterator[Path]:
    """Give every text file of the repository that is ours; nothing hidden but `.ci`, nothing that tools made."""
    for path in REPOSITORY.rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        hidden = [part for part in parts if part.startswith(".") and part not in {".ci", ".gitignore", ".dockerignore"}]
        made = {"__pycache__", "dist", "build", "node_modules"} & set(parts)
        if path.is_file() and path.suffix in TEXT and not hidden and not made:
            yield path


def modules() -> list[str]:
    return sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


def test_every_step_of_the_workflow_has_its_coroutine_and_every_coroutine_its_step() -> None:
    links = load_workflow(Settings()).links.values()

    assert {link.execute for link in links if not isinstance(link.config, ChoiceConfig)} == set(HANDLERS)


@pytest.mark.parametrize("execute", HANDLERS)
def test_a_step_is_called_as_it_is_executed_and_says_what_it_does(execute: str) -> None:
    assert HANDLERS[execute].__name__ == execute
    assert HANDLERS[execute].__module__.startswith("ingestd.handlers.")
    assert HANDLERS[execute].__doc__


def test_links_are_not_named_twice_for_people() -> None:
    named = [(link.group_name, link.name) for link in load_workflow(Settings()).links.values()]

    assert len(set(named)) >= len(named) - 2  # a choice may stand before the link of the same name


def test_the_published_documents_are_those_that_the_models_give() -> None:
    """If this fails: `python -m ingestd schemas schemas` writes them anew."""
    for name, text in documents(Settings()).items():
        assert text == (REPOSITORY / "schemas" / name).read_text(encoding="utf-8"), name


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""


@pytest.mark.parametrize(("name", "description"), [*settings_of(Settings), *settings_of(ProcessingConfig)])
def test_every_setting_and_every_option_is_described(name: str, description: str) -> None:
    assert len(description) > 5, name


def test_every_code_is_in_the_catalogue() -> None:
    assert set(Code) == set(CATALOGUE)


@pytest.mark.parametrize("option", ProcessingConfig.model_fields)
def test_every_option_stands_in_the_readme(option: str) -> None:
    assert f"`{option}`" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", modules())
def test_modules_are_short(module: str) -> None:
    lines = (SOURCE / module).read_text(encoding="utf-8").count("\n")

    assert lines <= CATALOGUES.get(module, LONGEST_MODULE)


def test_a_list_of_exceptions_names_none_that_is_not_one() -> None:
    for module in CATALOGUES:
        assert (SOURCE / module).read_text(encoding="utf-8").count("\n") > LONGEST_MODULE


def test_nothing_is_left_to_do_without_an_issue() -> None:
    word = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X{3})\b(?!\s*\(?#\d+)")
    allowed = {"pyproject.toml"}  # it names the linter's rule
    found = [
        str(path) for path in files() if path.name not in allowed and word.search(path.read_text("utf-8", "replace"))
    ]

    assert found == []


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    """A path of the workplace in a document is a thing that nobody else can follow."""
    places = re.compile("(?<![A-Za-z0-9_.])(?:/wo" + "rk/(?:main|shared)|/tm" + "p/venv|/ro" + "ot/)")
    found = [str(path) for path in files() if places.search(path.read_text("utf-8", "replace"))]

    assert found == []


def test_the_floors_name_every_module() -> None:
    floors = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Decisions")[0]
    names = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}

    assert [name for name in sorted(names - {"__init__"}) if f"`{name}`" not in floors] == []


def test_retired_words_are_not_used_for_modules() -> None:
    retired = {"utils", "util", "helpers", "helper", "common", "misc", "unit", "manager"}

    assert not {Path(module).stem for module in modules()} & retired
