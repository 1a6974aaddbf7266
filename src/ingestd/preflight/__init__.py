"""Pre-flight: everything that can be known of a request before anything is done for it, told at once.

The request, its options, target and credentials; that the source is there, and its checksum where that is cheap;
names, sizes and structure; a bag's completeness, and digests while they are few; metadata files, read as the steps
will read them. What is looked at is limited (settings `preflight`), and the report says where a limit ended the look:
the steps see the rest. A remote source is asked for its head or list alone.
"""

from __future__ import annotations

from ingestd.preflight.looking import Preflight, name_of
from ingestd.preflight.report import Report

__all__ = ["Preflight", "Report", "name_of"]
