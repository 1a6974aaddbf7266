"""How `multipart` reaches S3: with the same credentials, endpoint and certificates as `objectstore`, from the same
places. Of botocore's own many places (profiles, files below `~/.aws`) none is looked at that obstore does not know.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import CredentialProvider, RefreshableCredentials
from botocore.session import Session

from ingestd.keeping import CredentialSettings
from ingestd.objectstore import PARTS_AT_ONCE, Bucket
from ingestd.storage.multipart import Client, Uploads

_VARIABLES = {
    # What botocore calls it: (in its file, in the environment, otherwise, conversion)
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
    "profile": (None, None, None, None),
    "region": (None, ["AWS_REGION", "AWS_DEFAULT_REGION"], "us-east-1", None),
    "ca_bundle": (None, None, ssl.get_default_verify_paths().cafile, None),
    "endpoint": (None, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"], "", None),
    "virtual": (None, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "", None),
    "ServerSideEncryption": (None, "AWS_SERVER_SIDE_ENCRYPTION", "", None),
    "SSEKMSKeyId": (None, "AWS_SSE_KMS_KEY_ID", "", None),
    "BucketKeyEnabled": (None, "AWS_SSE_BUCKET_KEY_ENABLED", "", lambda value: str(value).lower() == "true"),
}
_ENCRYPTION = ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
_ELSEWHERE = ("boto-config", "ec2-credentials-file")
"""Places of credentials that obstore does not look into."""
_REREAD_SECONDS = 60


def open_uploads(
    bucket: Bucket,
    url: str,
    credentials: CredentialSettings | None = None,
    *,
    endpoint: str = "",
    patience_seconds: float = 60,
) -> Uploads | None:
    """Make ready for uploads to `s3://BUCKET/PREFIX`, which is `bucket`; nothing is asked of the store yet.

    None where the environment wants objects encrypted with a key of the customer's (SSE-C), which goes with each part.
    """
    account = credentials or CredentialSettings()
    session = Session(session_vars=_VARIABLES)
    endpoint = endpoint or account.endpoint or session.get_config_variable("endpoint")
    parts = urlsplit(url)
    wanted = {name: session.get_config_variable(name) for name in _ENCRYPTION}
    if wanted["ServerSideEncryption"] == "sse-c":
        return None
    return Uploads(
        bucket,
        name=parts.netloc,
        prefix=unquote(parts.path).strip("/"),
        connect=lambda: _client(session, account, endpoint, parts.netloc),
        checksums=not endpoint,  # some compatible stores refuse them
        encryption={name: value for name, value in wanted.items() if value},
        patience_seconds=patience_seconds,
    )


def _client(session: Session, account: CredentialSettings, endpoint: str, bucket: str) -> Client:
    resolver = session.get_component("credential_provider")
    for method in _ELSEWHERE:
        resolver.remove(method)
    if account.folder is not None:
        resolver.insert_before("env", _Mounted(account))
    virtual = session.get_config_variable("virtual").lower() == "true"
    if virtual:  # obstore's endpoint has the bucket in its name then, botocore's has not
        endpoint = endpoint.replace(f"://{bucket}.", "://", 1)
    return session.create_client(
        "s3",
        region_name=account.region or None,
        endpoint_url=endpoint or None,
        config=Config(
            signature_version=UNSIGNED if account.anonymous else "s3v4",
            s3={"addressing_style": "virtual" if virtual else "path", "us_east_1_regional_endpoint": "regional"},
            connect_timeout=10,
            read_timeout=60,
            retries={"total_max_attempts": 1},  # `multipart` tries again, and hears of a cancellation meanwhile
            max_pool_connections=8 * PARTS_AT_ONCE,  # of several packages at once
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **_keys(account),
    )


def _keys(account: CredentialSettings) -> Mapping[str, Any]:
    """The keys of the settings; none where they are read from a folder, or are to come from the environment."""
    if account.folder is not None or not account.secret("access_key_id"):
        return {}
    names = ("access_key_id", "secret_access_key", "session_token")
    return {f"aws_{name}": account.secret(name) or None for name in names}


class _Mounted(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """Secrets in files, read again now and then, so that they can be renewed without a restart."""

    METHOD = "ingestd"

    def __init__(self, account: CredentialSettings) -> None:
        super().__init__()
        self._account = account

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(self._read(), self._read, self.METHOD)

    def _read(self) -> dict[str, Any]:
        return {
            "access_key": self._account.secret("access_key_id"),
            "secret_key": self._account.secret("secret_access_key"),
            "token": self._account.secret("session_token") or None,
            "expiry_time": (datetime.now(UTC) + timedelta(seconds=_REREAD_SECONDS)).isoformat(),
        }
