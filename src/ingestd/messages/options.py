"""Processing options: what is done with a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ingestd.errors import Code, RequestError, Violation, nearest
from ingestd.messages.values import violation_of
from ingestd.oais import Reingest


class CompressionAlgorithm(StrEnum):
    """How the AIP is packed."""

    UNCOMPRESSED = "uncompressed"
    TAR = "tar"
    TAR_BZIP2 = "tar_bzip2"
    TAR_GZIP = "tar_gzip"
    S7_COPY = "s7_copy"
    S7_BZIP2 = "s7_bzip2"
    S7_LZMA = "s7_lzma"
    TAR_ZSTD = "tar_zstd"


def _algorithm(value: Any) -> Any:
    """Accept a3m's spellings too: `S7_COPY`, and its enum's numbers 1 to 7."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 7:
        return list(CompressionAlgorithm)[value - 1]
    return value.lower() if isinstance(value, str) else value


class ProcessingConfig(BaseModel):
    """What is done with a package. In a request only what is named overrides the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    assign_uuids_to_directories: bool = True
    """Give every directory a UUID and describe it in the METS."""
    scan_for_viruses: bool = True
    """Look for malware in every file with ClamAV."""
    examine_contents: bool = False
    """Look for personal data and other patterns with bulk_extractor."""
    generate_transfer_structure_report: bool = True
    """Write a listing of the original tree into the AIP."""
    document_empty_directories: bool = True
    """Add a second structMap that also names empty directories."""
    extract_packages: bool = True
    """Unpack archives, disk images and mailboxes found among the objects, by the formats that `identify_transfer`
    finds."""
    delete_packages_after_extraction: bool = False
    """Remove an archive once it is unpacked."""
    identification_command: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]*$", max_length=200)] = (
        "siegfried"
    )
    """What identifies formats: `siegfried`, `fido`, `extension`, or another identification command of the registry."""
    identify_transfer: bool = True
    """Identify the formats of the objects."""
    identify_submission_and_metadata: bool = True
    """Identify the formats of submission documentation and metadata files."""
    identify_before_normalization: bool = True
    """Identify again before normalization."""
    normalize: bool = True
    """Make preservation copies where the format policy asks for them."""
    normalize_for_access: bool = False
    """Make access copies, and a DIP of them, which is stored beside the AIP."""
    perform_policy_checks_on_access_derivatives: bool = True
    """Check access copies against a site's MediaConch policies."""
    generate_thumbnails: bool | Literal["without_defaults"] = False
    """Make thumbnails for a DIP; `without_defaults`: no icon for what has no picture of its own."""
    transcribe_files: bool = True
    """Read text from images (OCR)."""
    transcription_language: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)?(?:\+[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)?)*$", max_length=200)
    ] = "eng"
    """Languages of the texts as Tesseract names them, joined by `+`: `deu+eng`, `script/Latin`."""
    validate_formats: bool = True
    """Check files, and the preservation copies made of them, against the specifications of their formats."""
    perform_policy_checks_on_originals: bool = True
    """Check originals against a site's MediaConch policies."""
    perform_policy_checks_on_preservation_derivatives: bool = True
    """Check preservation copies against a site's MediaConch policies."""
    aip_compression_level: Annotated[int, Field(ge=1, le=9)] = 1
    """1 is fastest, 9 is smallest."""
    aip_compression_algorithm: Annotated[CompressionAlgorithm, BeforeValidator(_algorithm)] = (
        CompressionAlgorithm.S7_COPY
    )
    """How the AIP is packed."""
    encrypt_aip: bool = False
    """Encrypt the packed AIP with GnuPG to the keys of the setting `encryption`."""

    @classmethod
    def resolve(cls, *layers: Mapping[str, Any]) -> ProcessingConfig:
        """Lay options over the defaults, the later over the earlier.

        Raises `RequestError` (`request.unknown_option` or `request.schema_invalid`) that names every wrong one.
        """
        merged = {name: value for layer in layers for name, value in layer.items()}
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            violations = tuple(_option_violation(item) for item in error.errors())
            unknown = all(violation.rule == "unknown_option" for violation in violations)
            code = Code.REQUEST_UNKNOWN_OPTION if unknown else Code.REQUEST_SCHEMA_INVALID
            names = ", ".join(violation.path for violation in violations)
            raise RequestError(f"processing options are wrong: {names}", code=code, violations=violations) from error

    def as_options(self) -> dict[str, bool | int | str]:
        values: dict[str, bool | int | str] = self.model_dump(mode="json")
        return values


_ONCE = frozenset({"generate_transfer_structure_report", "extract_packages"})
_EXAMINING = _ONCE | {
    "identify_transfer",
    "identify_before_normalization",
    "examine_contents",
    "perform_policy_checks_on_originals",
    "transcribe_files",
}
_DERIVING = frozenset({"normalize", "normalize_for_access", "generate_thumbnails", "validate_formats"})
LEFT_OUT = {
    Reingest.METADATA: _EXAMINING | _DERIVING,
    Reingest.PARTIAL: _EXAMINING,
    Reingest.FULL: _ONCE,
}
"""The processing options that are off in a reingest: what was done before is kept as it is."""
REINGEST = "reingest"
"""What links choose by besides the processing options: whether the request is a reingest."""
CHOICES = (*ProcessingConfig.model_fields, REINGEST)


def _option_violation(item: Any) -> Violation:
    if item["type"] != "extra_forbidden":
        return violation_of(item, "processing")
    expected = nearest(str(item["loc"][0]), list(ProcessingConfig.model_fields))
    return replace(violation_of(item, "processing"), rule="unknown_option", expected=expected)
