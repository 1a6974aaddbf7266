"""The message contract: preservation requests in, events and results out.

Structured-mode CloudEvents 1.0 in JSON. These models are the contract: `schemas/` is generated from them, and a test
keeps the two equal. Of a request, only `source.location` is required; unknown keys are ignored, except in
`processing`, where a misspelt option must not be lost in silence. Sizes are bytes, times RFC 3339 in UTC.
"""

from ingestd.messages.commands import (
    FROM_FAILED,
    FROM_START,
    Cancel,
    CancelData,
    ControlCommand,
    Retry,
    RetryData,
    read_command,
)
from ingestd.messages.events import (
    BatchData,
    ErrorData,
    Event,
    EventData,
    EventType,
    FixityData,
    LinkData,
    Outcome,
    RequestState,
    TimingData,
    ToolData,
    WarningData,
    end_of,
    routing_word,
)
from ingestd.messages.options import CHOICES, LEFT_OUT, REINGEST, CompressionAlgorithm, ProcessingConfig
from ingestd.messages.packages import (
    AipData,
    CountsData,
    DipData,
    EncryptionData,
    NormalizationData,
    NormalizedData,
    PointerData,
    StoredData,
    VirusScanData,
)
from ingestd.messages.requests import (
    MAX_BODY_BYTES,
    Batch,
    OwnPolicy,
    PreservationRequest,
    Priority,
    RequestEnvelope,
    RequestSource,
    parse_request,
    read_context,
    read_request,
    stored_aip,
)
from ingestd.messages.summary import EventCount, FormatCount, PackageSummary
from ingestd.messages.values import MAX_DEPTH, Checksum

CONTENT_TYPE = "application/cloudevents+json"

__all__ = [
    "CHOICES",
    "CONTENT_TYPE",
    "FROM_FAILED",
    "FROM_START",
    "LEFT_OUT",
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "REINGEST",
    "AipData",
    "Batch",
    "BatchData",
    "Cancel",
    "CancelData",
    "Checksum",
    "CompressionAlgorithm",
    "ControlCommand",
    "CountsData",
    "DipData",
    "EncryptionData",
    "ErrorData",
    "Event",
    "EventCount",
    "EventData",
    "EventType",
    "FixityData",
    "FormatCount",
    "LinkData",
    "NormalizationData",
    "NormalizedData",
    "Outcome",
    "OwnPolicy",
    "PackageSummary",
    "PointerData",
    "PreservationRequest",
    "Priority",
    "ProcessingConfig",
    "RequestEnvelope",
    "RequestSource",
    "RequestState",
    "Retry",
    "RetryData",
    "StoredData",
    "TimingData",
    "ToolData",
    "VirusScanData",
    "WarningData",
    "end_of",
    "parse_request",
    "read_command",
    "read_context",
    "read_request",
    "routing_word",
    "stored_aip",
]
