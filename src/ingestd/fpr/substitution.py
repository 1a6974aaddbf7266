"""Variables put into scripts, each as data for the place where it stands.

A name in a package is anything but `/` and the null byte, so no value is ever text that something parses:

- `command`: the script is split into arguments first, by the shell's quoting rules but without a shell, and variables
  are filled into the arguments.
- `bashScript`: every placeholder is rewritten to the expansion of a shell variable, quoted for where it stands, and
  the values travel in the environment. Bash does not read the result of an expansion as code. What the script looks
  like to bash does not depend on any value.
- `pythonScript` and `as_is`: the script is left as it is; values are options, or positional arguments.

Where a script itself hands a variable to something that reads code (`eval`, `sh -c`, shell arithmetic) no quoting is
right for every value: `dangers` finds that, and the registry refuses such a script.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from ingestd.fpr.variables import PLACEHOLDER, VARIABLES

ENVIRONMENT = "FPR_"
"""What the names of shell variables begin with that hold values: a script's own names stay its own."""

_VARIABLE = r"%[A-Za-z]{4,}%"
_ARITHMETIC = re.compile(rf"\(\((?:[^()]|\([^()]*\))*?{_VARIABLE}")
_EVAL = re.compile(rf"(?:^|[;&|(`]|\b(?:then|do|else)\b)\s*eval\b[^\n]*{_VARIABLE}", re.MULTILINE)
_CODE = re.compile(
    rf"""\b(?:(?:ba|da|z|k)?sh|python[\d.]*|perl|ruby)\s+(?:-\w+\s+)*-\w*[ce]\s+
    (?:"(?:[^"\\]|\\.)*?{_VARIABLE}|'[^']*?{_VARIABLE}|{_VARIABLE})""",
    re.VERBOSE | re.DOTALL,
)
_DANGERS = ((_EVAL, "eval"), (_CODE, "another interpreter"), (_ARITHMETIC, "arithmetic"))


class QuotingError(ValueError):
    """A script in which a variable stands where it cannot be filled in safely, or at all."""


def arguments(script: str, values: Mapping[str, str]) -> list[str]:
    """Split a `command` into arguments and fill its variables in. Raises `QuotingError`."""
    try:
        return [fill(token, values) for token in shlex.split(script)]
    except ValueError as error:
        raise QuotingError(f"the command cannot be split into arguments: {error}") from error


def fill(text: str, values: Mapping[str, str]) -> str:
    """Fill variables into text that nothing parses, such as a path. What is filled in is not looked at again."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], "") if match[1] in VARIABLES else match[0], text)


def environment(script: str, values: Mapping[str, str]) -> dict[str, str]:
    """Give the environment that a script rewritten by `bash` takes its values from."""
    names = {name for name in PLACEHOLDER.findall(script) if name in VARIABLES}
    return {f"{ENVIRONMENT}{name}": values.get(name, "") for name in sorted(names)}


def interpreter(script: str) -> list[str]:
    """Read from the first line of an as_is script what runs it, as execve(2) does. Raises `QuotingError`."""
    line = script.split("\n", 1)[0]
    if not line.startswith("#!") or not line[2:].strip():
        raise QuotingError("an as_is script begins with #! and its interpreter")
    return line[2:].strip().split(None, 1)


def dangers(script: str) -> list[str]:
    """Find in a bashScript what hands a variable to something that reads code."""
    return [f"{what} reads a variable as code" for pattern, what in _DANGERS if pattern.search(script)]


def bash(script: str) -> str:
    """Rewrite a bashScript so that its placeholders are expansions of shell variables. Raises `QuotingError`."""
    return _Bash(script).rewrite()


def quoted(script: str) -> str:
    """Put double quotes around the placeholders of a bashScript that have none. Raises `QuotingError`.

    For systems that fill values into the text of a script, as text.
    """
    return _Bash(script, textual=True).rewrite()


@dataclass(slots=True)
class _Bash:
    """One pass over a script that knows at each placeholder how bash quotes there.

    `stack` holds the closing mark of what is open: `'`, `"`, `$'`, `)`, a backtick, `}`; empty at the top. Inside `)`
    and a backtick quoting begins anew, inside `}` it is that of around it.
    """

    script: str
    textual: bool = False
    at: int = 0
    stack: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    documents: list[tuple[str, bool]] = field(default_factory=list)

    def rewrite(self) -> str:
        while self.at < len(self.script):
            self._step()
        if self.stack:
            raise QuotingError(f"the script ends within {self.stack[-1]}")
        return "".join(self.out)

    @property
    def _quote(self) -> str:
        """The quotes that hold at this place: `'`, `$'`, `"`, or none."""
        for mark in reversed(self.stack):
            if mark in {"'", "$'", '"'}:
                return mark
            if mark in {")", "`"}:
                return ""
        return ""

    def _step(self) -> None:
        match = PLACEHOLDER.match(self.script, self.at)
        if match and match[1] in VARIABLES:
            self.out.append(self._expansion(match[1]))
            self.at = match.end()
        elif self._quote in {"'", "$'"}:
            self._in_single()
        else:
            self._in_code()

    def _expansion(self, name: str) -> str:
        value = f"${{{ENVIRONMENT}{name}}}"
        if self.textual:
            return f"%{name}%" if self._quote else f'"%{name}%"'
        match self._quote:
            case '"':
                return value
            case "'":
                return f"'\"{value}\"'"
            case "$'":
                return f"'\"{value}\"$'"
            case _:
                return f'"{value}"'

    def _in_single(self) -> None:
        if self._quote == "$'" and self.script[self.at] == "\\":
            self._take(2)
            return
        if self.script[self.at] == "'":
            self.stack.pop()
        self._take(1)

    def _in_code(self) -> None:
        here = self.script[self.at]
        if here == "\\":
            self._take(2)
        elif self.stack and here == self.stack[-1]:
            self.stack.pop()
            self._take(1)
        elif not self._opens():
            if here == "\n" and not self._quote:
                self._newline()
            elif here == "#" and not self._quote and self._begins_word():
                self._comment()
            else:
                self._take(1)

    def _opens(self) -> bool:
        """Take what opens a context, if something does here."""
        quoted = self._quote == '"'
        for opening, closing, within_quotes in _OPENINGS:
            if (within_quotes or not quoted) and self.script.startswith(opening, self.at):
                self.stack.append(closing)
                self._take(len(opening))
                return True
        heredoc = None if quoted or self._shifts else _HEREDOC.match(self.script, self.at)
        if heredoc:
            word = heredoc[2]
            self.documents.append((word.strip("'\"").replace("\\", ""), word != word.strip("'\"") or "\\" in word))
            self._take(len(heredoc[0]))
        return heredoc is not None

    @property
    def _shifts(self) -> bool:
        """Whether `<<` here is arithmetic or the end of `<<<`."""
        return self.stack[-2:] == [")", ")"] or self.script[self.at - 1 : self.at] == "<"

    def _begins_word(self) -> bool:
        return self.at == 0 or self.script[self.at - 1] in " \t\n;&|("

    def _comment(self) -> None:
        """Leave a comment out: a value has no business in it, and its apostrophes are no quotes."""
        end = self.script.find("\n", self.at)
        self.at = len(self.script) if end < 0 else end

    def _newline(self) -> None:
        self._take(1)
        while self.documents:
            word, literal = self.documents.pop(0)
            self._document(word, literal=literal)

    def _document(self, word: str, *, literal: bool) -> None:
        """Take a here-document, in which bash expands variables as within double quotes, unless its word is quoted."""
        while self.at < len(self.script):
            end = self.script.find("\n", self.at)
            end = len(self.script) if end < 0 else end + 1
            line = self.script[self.at : end]
            self.at = end
            names = [name for name in PLACEHOLDER.findall(line) if name in VARIABLES]
            if names and literal:
                raise QuotingError(f"%{names[0]}% stands in a here-document that is quoted: nothing can be filled in")
            self.out.append(line if self.textual else PLACEHOLDER.sub(_expand, line))
            if line.strip("\t\n") == word:
                return

    def _take(self, count: int) -> None:
        self.out.append(self.script[self.at : self.at + count])
        self.at += count


def _expand(match: re.Match[str]) -> str:
    return f"${{{ENVIRONMENT}{match[1]}}}" if match[1] in VARIABLES else match[0]


_OPENINGS = (
    ("$'", "$'", False),
    ("'", "'", False),
    ('"', '"', True),
    ("$(", ")", True),
    ("${", "}", True),
    ("`", "`", True),
    ("(", ")", False),
)
"""What opens a context, what its mark on the stack is, and whether it does so within double quotes too."""

_HEREDOC = re.compile(r"<<(-?)[ \t]*([A-Za-z_]\w*|'[^'\n]+'|\"[^\"\n]+\"|\\\w+)")
