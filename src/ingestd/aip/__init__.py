"""Reading AIPs: those of ingestd, of Archivematica (0.x to 1.17) and of a3m; folders and packages, however large.

::

    from ingestd import aip

    found = await aip.inspect(Path("NAME-UUID.7z"))
    print(found.files, [format.puid for format in found.formats])
    proved = await aip.verify(Path("NAME-UUID.7z"))
    for finding in proved.findings:
        print(finding.rule, finding.path, finding.expected, finding.actual)

Nothing is unpacked and nothing is believed: what the METS or a package says never leads to a path outside.
"""

from __future__ import annotations

from ingestd.aip.difference import diff
from ingestd.aip.extraction import extract
from ingestd.aip.inspection import inspect
from ingestd.aip.records import (
    Change,
    Checked,
    Concern,
    Counted,
    Description,
    Difference,
    Entry,
    EventCount,
    Extracted,
    FormatCount,
    Inspection,
    Reported,
    RightsCount,
    Verification,
)
from ingestd.aip.report import report
from ingestd.aip.verification import verify

__all__ = [
    "Change",
    "Checked",
    "Concern",
    "Counted",
    "Description",
    "Difference",
    "Entry",
    "EventCount",
    "Extracted",
    "FormatCount",
    "Inspection",
    "Reported",
    "RightsCount",
    "Verification",
    "diff",
    "extract",
    "inspect",
    "report",
    "verify",
]
