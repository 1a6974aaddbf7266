"""The names of Dublin Core: its fifteen elements, and the terms that refine them (DCMI Metadata Terms)."""

from __future__ import annotations

DC_ELEMENTS = frozenset(
    """contributor coverage creator date description format identifier language publisher relation rights source subject
    title type""".split()  # noqa: SIM905  a list to read
)
"""The elements of Dublin Core (DCMES 1.1)."""
DC_TERMS = frozenset(
    """abstract accessRights accrualMethod accrualPeriodicity accrualPolicy alternative audience available
    bibliographicCitation conformsTo created dateAccepted dateCopyrighted dateSubmitted educationLevel extent hasFormat
    hasPart hasVersion instructionalMethod isFormatOf isPartOf isReferencedBy isReplacedBy isRequiredBy isVersionOf
    issued license mediator medium modified provenance references replaces requires rightsHolder spatial tableOfContents
    temporal valid""".split()  # noqa: SIM905  a list to read
)
"""The properties of DCMI Metadata Terms that are no elements."""
