"""OAIS Data Management: what is known, durably. The only package that knows aiosqlite.

Two kinds of database. The *service journal* (`service.py`) holds requests and the outbox of events. Each package has a
*journal of its own* (`package.py`) in its working folder: packages never contend, a finished one costs one
`rmtree`, and a package resumes wherever its folder is.
"""

from ingestd.journal.package import PackageJournal
from ingestd.journal.records import JobRecord
from ingestd.journal.requests import OutboxItem, RequestRecord, Tombstone
from ingestd.journal.rules import RuleCount
from ingestd.journal.service import ServiceJournal

__all__ = ["JobRecord", "OutboxItem", "PackageJournal", "RequestRecord", "RuleCount", "ServiceJournal", "Tombstone"]
