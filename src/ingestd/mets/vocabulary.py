"""Namespaces, schema locations and identifiers of the METS that Archivematica writes, and that ingestd writes alike.

METS 1.12.1, PREMIS 3.0, Dublin Core in `dcterms:dublincore`. Identifiers are made of the records' row numbers, so that
they are unique, and known wherever they are referred to, without anything to remember.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ingestd.oais import FileUse

METS = "http://www.loc.gov/METS/"
PREMIS = "http://www.loc.gov/premis/v3"
PREMIS_2 = "info:lc/xmlns/premis-v2"
XLINK = "http://www.w3.org/1999/xlink"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
DC = "http://purl.org/dc/elements/1.1/"
DCTERMS = "http://purl.org/dc/terms/"

METS_LOCATION = f"{METS} http://www.loc.gov/standards/mets/version1121/mets.xsd"
PREMIS_LOCATION = f"{PREMIS} http://www.loc.gov/standards/premis/v3/premis.xsd"
DC_LOCATION = f"{DCTERMS} https://dublincore.org/schemas/xmls/qdc/2008/02/11/dcterms.xsd"

COMPACT = "https://ingestd.org/mets/compact/1"
"""The PROFILE of a METS that says nothing twice. Archivematica's schematron, which wants some things said again and
again, is not for it."""

OBJECTS = "objects"
"""The folder whose files are in the METS."""
TRANSFER = "%transferDirectory%"
SIP = "%SIPDirectory%"
"""What original names begin with: the root of the transfer, or of the SIP for what was made or put there later."""
NORMATIVE_LABEL = "Normative Directory Structure"

RECEIVED_USES = frozenset({FileUse.ORIGINAL, FileUse.SERVICE, FileUse.LICENSE, FileUse.DERIVATIVE})
"""Uses whose original names begin with `TRANSFER`."""
DELETED = "deleted"
"""The group in which Archivematica lists what it removed when it reingested: files without a place."""
DERIVED_USES = frozenset(
    {
        FileUse.PRESERVATION,
        FileUse.SERVICE,
        FileUse.ACCESS,
        FileUse.TEXT_OCR,
        FileUse.DERIVATIVE,
        FileUse.THUMBNAIL,
    }
)
"""Uses of files that belong to the group of the file they were derived from."""

PACKAGE_DMD = "dmdSec_1"
"""The AIP's own dmdSec, its PREMIS intellectual entity."""
REQUEST_DMD = "dmdSec_2"
"""The dmdSec of what the request says of the package as a whole."""


def directory_dmd(row: int) -> str:
    """The dmdSec of a directory's PREMIS entity: odd numbers from 3 on, for rows from 1 on."""
    return f"dmdSec_{2 * row + 1}"


def description_dmd(row: int) -> str:
    """The dmdSec of a description: even numbers from 4 on, for rows from 1 on."""
    return f"dmdSec_{2 * row + 2}"


def mets_time(at: datetime) -> str:
    """Spell a time as METS attributes have it: `YYYY-MM-DDTHH:MM:SS`, UTC, without a zone."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
