"""Who we are to a store: the environment and the file of the AWS tools. Never the command line.

AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), else the profile AWS_PROFILE of the
file that AWS_SHARED_CREDENTIALS_FILE names, else of `~/.aws/credentials`.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from falaj.base.errors import FalajError
from falaj.links.s3.client import Credentials

__all__ = ["store_login"]


def store_login(environ: Mapping[str, str] | None = None) -> tuple[Credentials, str]:
    """The pair, and the session's token if there is one. Raises FalajError."""
    environ = os.environ if environ is None else environ
    key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if key and secret:
        return Credentials(key, secret), environ.get("AWS_SESSION_TOKEN", "")
    named = environ.get("AWS_SHARED_CREDENTIALS_FILE")
    path = Path(named or Path(environ.get("HOME", "/"), ".aws", "credentials"))
    if not named and not path.is_file():
        raise unusable("nobody says who we are to the store")
    profile = environ.get("AWS_PROFILE", "default")
    read = configparser.RawConfigParser()
    try:
        read.read_string(path.read_text(encoding="utf-8"))
        table = dict(read.items(profile))
    except (OSError, UnicodeDecodeError, configparser.Error):
        raise unusable(f"{path} has no readable profile [{profile}]") from None
    key, secret = table.get("aws_access_key_id", ""), table.get("aws_secret_access_key", "")
    if not key or not secret:
        raise unusable(f"profile [{profile}] of {path} lacks the key or the secret")
    return Credentials(key, secret), table.get("aws_session_token", "")


def unusable(message: str) -> FalajError:
    return FalajError(
        "remote.bad-credentials",
        message,
        why="looked for in the environment and in the credentials file of the AWS tools",
        fix="AWS_SHARED_CREDENTIALS_FILE names the file, AWS_PROFILE the profile in it",
    )
