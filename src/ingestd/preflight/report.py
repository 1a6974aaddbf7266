"""What a pre-flight found: errors, which reject the request; warnings; and how far it looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingestd.errors import Code, IngestError, Violation
from ingestd.manifests import LISTED
from ingestd.oais import Warning_
from ingestd.sources import Checked

_FIELDS = {Code.REQUEST_EXPIRED: "expires_at"}


@dataclass(kw_only=True, slots=True)
class Report:
    """`name`: the package's. `files` and `size_bytes` are of the content, None where only receiving it tells;
    `source_bytes` is what has to be fetched or read. `limits` say, in words, what was not looked at.
    """

    name: str = ""
    checked: Checked | None = None
    files: int | None = None
    size_bytes: int | None = None
    source_bytes: int | None = None
    errors: list[IngestError] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)

    def error(self) -> IngestError | None:
        """Everything that was found, as one error: its code is that of what was found first; None where nothing was."""
        if not self.errors:
            return None
        first = self.errors[0]
        if len(self.errors) == 1 and not self.limits:
            return first
        listed = [violation for error in self.errors for violation in _violations(error)]
        details = "; ".join(error.detail for error in self.errors)
        told = f"{len(self.errors)} things are wrong: {details}" if len(self.errors) > 1 else details
        limits = f" ({'; '.join(self.limits)})" if self.limits else ""
        remediation = " ".join(dict.fromkeys(error.remediation for error in self.errors))
        return type(first)(
            told + limits, code=first.code, violations=tuple(listed[:LISTED]), remediation=remediation, tool=first.tool
        )


def _violations(error: IngestError) -> Sequence[Violation]:
    path = _FIELDS.get(error.code) or ("source.location" if error.code.category == "source" else "")
    return error.violations or [Violation(path=path, rule=error.code.value, actual=error.detail)]
