from __future__ import annotations

import re

import pytest

from ingestd import errors
from ingestd.errors import CATALOGUE, Code, IngestError, Retry


def test_every_code_has_its_entry_and_no_other() -> None:
    assert set(Code) == set(CATALOGUE)


@pytest.mark.parametrize("code", Code)
def test_every_entry_says_what_happened_and_what_to_do(code: Code) -> None:
    entry = CATALOGUE[code]

    assert entry.title
    assert not entry.title.endswith(".")
    assert entry.remediation.endswith(".")


@pytest.mark.parametrize("code", Code)
def test_a_code_is_its_category_and_a_name(code: Code) -> None:
    assert re.fullmatch(rf"{code.category}\.[a-z_]+", code.value)


def test_each_branch_of_the_tree_stands_for_one_category_and_each_category_has_its_branch() -> None:
    branches = IngestError.__subclasses__()

    assert {code.category for code in Code} == {branch.default_code.category for branch in branches}
    assert len(branches) == len({branch.default_code.category for branch in branches})


def test_the_tree_is_drawn_on_top_as_it_is() -> None:
    for branch in IngestError.__subclasses__():
        assert re.search(rf"── {branch.__name__}\s+{branch.default_code.category}\.\*", errors.__doc__ or "")


def test_an_error_takes_the_catalogues_words_unless_it_has_better_ones() -> None:
    plain = errors.StorageError("no", code=Code.STORAGE_CONFLICT)
    better = errors.StorageError("no", code=Code.STORAGE_CONFLICT, remediation="Look.")

    assert CATALOGUE[Code.STORAGE_CONFLICT].remediation == plain.remediation
    assert better.remediation == "Look."
    assert str(plain) == "no"


def test_what_is_never_tried_again_is_not_retryable() -> None:
    assert {c for c in Code if not CATALOGUE[c].retryable} == {c for c in Code if CATALOGUE[c].retry is Retry.NEVER}
