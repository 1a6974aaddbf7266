"""A name is data wherever a script puts it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.fpr.substitution import (
    QuotingError,
    arguments,
    bash,
    dangers,
    environment,
    fill,
    interpreter,
    quoted,
)
from ingestd.fpr.variables import VARIABLES, options, unknown_variables

HOSTILE = [
    '"; rm -rf ~ #',
    "$(touch x)",
    "`touch x`",
    "a\nb",
    "it's",
    "*",
    "~",
    "$HOME",
    "\\",
    "'\"'\"'",
    "%fileName%",
    "-rf",
    "a  b",
    "}",
    ")",
    "EOF",
    "\udce9",
    "!!",
    "&& touch x",
]
NAMES = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4).map("".join),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30),
)
PLACES = {
    "unquoted": "printf '%s' %fileName%",
    "between double quotes": "printf '%s' \"%fileName%\"",
    "between single quotes": "printf '%s' '%fileName%'",
    "between ANSI quotes": "printf '%s' $'%fileName%'",
    "glued to others": "printf '%s' %fileName%''\"\"",
    "assigned": "x=%fileName%; printf '%s' \"$x\"",
    "in a command substitution": "x=$(printf '%s.' %fileName%); printf '%s' \"${x%.}\"",
    "in a quoted substitution with quotes of its own": 'x="$(printf \'%s.\' "%fileName%")"; printf \'%s\' "${x%.}"',
    "in backticks": "x=`printf '%s.' \"%fileName%\"`; printf '%s' \"${x%.}\"",
    "in a parameter's default": "printf '%s' \"${nothing:-%fileName%}\"",
    "in a here-document": "x=$(cat <<EOF\n%fileName%\nEOF\n); x=${x%.}; printf '%s' \"$x\"",
    "after a comment with an apostrophe": "# it's a comment\nprintf '%s' %fileName%",
    "in a function with a case": ("f() { case \"$1\" in '') ;; *) printf '%s' \"$1\" ;; esac; }\nf %fileName%"),
    "after a here-string": "read -r x <<<\"word\"\nprintf '%s' %fileName%",
    "after an escaped quote": 'y=\\"\nprintf \'%s\' "%fileName%"',
}


def run_bash(script: str, values: dict[str, str], folder: Path) -> bytes:
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", bash(script)],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment(script, values)},
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=25, deadline=None)
@given(name=NAMES)
def test_a_name_in_a_bash_script_is_one_word_and_nothing_more(
    place: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("work")

    # A command substitution drops newlines at the end of what it holds, which is bash's way with any value.
    expected = name.rstrip("\n") if "here-document" in place else name

    assert expected == run_bash(PLACES[place], {"fileName": name}, folder).decode("utf-8", "surrogateescape")
    assert list(folder.iterdir()) == []


@settings(deadline=None)
@given(name=NAMES, prefix=NAMES)
def test_a_name_in_a_command_is_one_argument(name: str, prefix: str) -> None:
    script = "convert \"%fileFullName%[0]\" -o%outputDirectory%%prefix%'%fileName%'.tif"

    filled = arguments(
        script, {"fileFullName": f"/a/{name}", "outputDirectory": "/out/", "prefix": prefix, "fileName": name}
    )

    assert ["convert", f"/a/{name}[0]", f"-o/out/{prefix}{name}.tif"] == filled


def test_a_value_is_not_filled_in_again() -> None:
    assert fill("%prefix%%fileName%", {"prefix": "%fileName%", "fileName": "%prefix%"}) == "%fileName%%prefix%"


def test_percent_signs_that_name_no_variable_are_left_alone() -> None:
    assert fill("%Y%m%d %unheardof%", {}) == "%Y%m%d %unheardof%"
    assert unknown_variables("date +%Y%m%d %unheardof% %fileName%") == ["unheardof"]


def test_a_variable_without_a_value_is_empty() -> None:
    assert arguments("tool %prefix% x%postfix%y", {}) == ["tool", "", "xy"]


def test_only_the_variables_that_a_script_names_are_in_its_environment() -> None:
    values = {"fileName": "a", "prefix": "b"}

    assert environment("echo %fileName% %Y%", values) == {"FPR_fileName": "a"}


def test_a_variable_in_a_quoted_here_document_is_refused() -> None:
    with pytest.raises(QuotingError, match="here-document"):
        bash("cat <<'EOF'\n%fileName%\nEOF\n")


@pytest.mark.parametrize("script", ["echo 'never closed", 'echo "$(true', "echo `true"])
def test_a_script_that_does_not_end_its_quotes_is_refused(script: str) -> None:
    with pytest.raises(QuotingError, match="ends within"):
        bash(script)


@pytest.mark.parametrize(
    "script",
    [
        'eval "convert %fileFullName%"',
        "if true; then eval %fileName%; fi",
        "sh -c 'cat %fileFullName%'",
        'bash -ec "cat \\"%fileFullName%\\""',
        "python3 -c \"print('%fileName%')\"",
        "echo $((%fileName% + 1))",
        "(( %fileName% > 1 ))",
    ],
)
def test_a_script_that_reads_a_variable_as_code_is_found(script: str) -> None:
    assert dangers(script)


@pytest.mark.parametrize(
    "script",
    [
        "sh -c 'cat \"$1\"' sh %fileFullName%",
        "echo evaluate %fileName%",
        "x=$((1 + 2)); cat %fileName%",
        "(cat %fileName%)",
    ],
)
def test_a_script_that_keeps_variables_as_data_is_not_suspected(script: str) -> None:
    assert dangers(script) == []


def test_for_systems_that_fill_in_text_placeholders_get_the_quotes_they_lack() -> None:
    assert quoted("a %fileName% \"b %prefix%\" '%postfix%'") == 'a "%fileName%" "b %prefix%" \'%postfix%\''


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SIPUUID", ("--sipuuid", "---sipuuid")),
        ("sipName", ("--sip-name",)),
        ("SIPDirectory", ("--sip-directory", "---sipdirectory")),
        ("SIPDirectoryBasename", ("--sip-directory-basename", "---sipdirectory-basename")),
        ("SIPLogsDirectory", ("--sip-logs-directory", "---siplogs-directory")),
        ("SIPObjectsDirectory", ("--sip-objects-directory", "---sipobjects-directory")),
        ("fileUUID", ("--file-uuid",)),
        ("originalLocation", ("--original-location",)),
        ("fileName", ("--file-name",)),
        ("inputFile", ("--input-file",)),
        ("fileFullName", ("--file-full-name",)),
        ("fileDirectory", ("--file-directory",)),
        ("fileExtension", ("--file-extension",)),
        ("fileExtensionWithDot", ("--file-extension-with-dot",)),
        ("outputFileUUID", ("--output-file-uuid",)),
        ("outputDirectory", ("--output-directory",)),
        ("outputFileName", ("--output-file-name",)),
        ("outputLocation", ("--output-location",)),
        ("fileGrpUse", ("--file-grp-use",)),
    ],
)
def test_options_are_spelled_as_documented_and_as_passed(name: str, expected: tuple[str, ...]) -> None:
    assert name in VARIABLES
    assert options(name) == expected


def test_an_interpreter_is_read_as_the_kernel_reads_it() -> None:
    assert interpreter("#!/usr/bin/env python3\nprint()") == ["/usr/bin/env", "python3"]
    with pytest.raises(QuotingError):
        interpreter("print()")


def test_rewritten_scripts_are_bash_that_bash_accepts() -> None:
    script = 'for f in %outputDirectory%*.tif; do [ -e "$f" ] && mv "$f" \'%fileName%\'; done'

    done = subprocess.run(["bash", "-n", "-c", bash(script)], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b""), shlex.quote(bash(script)) + sys.version
