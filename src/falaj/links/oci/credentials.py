"""Who we are to a registry: the auth file of docker, podman and skopeo. Never the command line.

Looked for where they look: the file that REGISTRY_AUTH_FILE names, `config.json` in the folder that
DOCKER_CONFIG names, `~/.docker/config.json`. Form: containers-auth.json(5), docker's config.json.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from falaj.base.errors import FalajError

__all__ = ["Login", "login_for"]

MOST_BYTES: Final = 1 << 20
HELPER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
HELPER_S: Final = 20.0


class Login(NamedTuple):
    """A name and its password; or, without them, a token that is exchanged for others."""

    user: str = ""
    secret: str = ""
    identity: str = ""


def login_for(host: str, environ: Mapping[str, str] | None = None) -> Login | None:
    """What the auth file says about a host; None: nothing, so we come without a name.

    Raises FalajError when the file is there and cannot be used.
    """
    environ = os.environ if environ is None else environ
    path = place(environ)
    if path is None:
        return None
    told = read(path)
    auths, helpers = told.get("auths", {}), told.get("credHelpers", {})
    if not isinstance(auths, dict) or not isinstance(helpers, dict):
        raise unusable(path, "auths and credHelpers are tables")
    helper = helpers.get(host) or (told.get("credsStore") if host in auths else None)
    if helper:
        return asked(path, helper, host, environ)
    entry = auths.get(host) or auths.get(f"https://{host}") or auths.get(f"https://{host}/v1/")
    return None if entry is None else of_entry(path, host, entry)


def place(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("REGISTRY_AUTH_FILE")
    if named:
        if not Path(named).is_file():
            raise unusable(Path(named), "REGISTRY_AUTH_FILE names it, and it is not there")
        return Path(named)
    folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/"), ".docker"))
    path = Path(folder, "config.json")
    return path if path.is_file() else None


def read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, getattr(error, "strerror", "") or "it is not JSON") from None
    if not isinstance(found, dict):
        raise unusable(path, "it is not a JSON object")
    return found


def of_entry(path: Path, host: str, entry: object) -> Login | None:
    match entry:
        case {"identitytoken": str(token)} if token:
            return Login(identity=token)
        case {"auth": str(text)} if text:
            try:
                user, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                colon = ""
            if not colon or not user:
                raise unusable(path, f"auth of {host} is not base64 of NAME:PASSWORD")
            return Login(user, secret.rstrip("\0"))
        case {}:
            return None
        case _:
            raise unusable(path, f"the entry of {host} is no table")


def asked(path: Path, helper: object, host: str, environ: Mapping[str, str]) -> Login | None:
    """The program docker-credential-HELPER keeps it, such as a key store of the desktop."""
    if not isinstance(helper, str) or not HELPER.fullmatch(helper):
        raise unusable(path, "the name of its credential helper cannot be one")
    program = shutil.which(f"docker-credential-{helper}", path=environ.get("PATH"))
    if program is None:
        raise unusable(path, f"there is no program docker-credential-{helper}")
    try:
        done = subprocess.run(
            [program, "get"],
            input=host.encode(),
            capture_output=True,
            timeout=HELPER_S,
            env=dict(environ),
            check=False,
        )
        if done.returncode != 0 and b"credentials not found" in done.stdout:
            return None
        found = json.loads(done.stdout[:MOST_BYTES]) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, RecursionError):
        found = None
    match found:
        case {"Username": "<token>", "Secret": str(token)}:
            return Login(identity=token)
        case {"Username": str(user), "Secret": str(secret)}:
            return Login(user, secret)
        case _:
            raise unusable(path, f"docker-credential-{helper} does not say who we are to {host}")


def unusable(path: Path, why: str) -> FalajError:
    return FalajError(
        "remote.bad-credentials",
        f"{path} cannot be used",
        why=why,
        fix="docker login HOST writes it anew; or let REGISTRY_AUTH_FILE name another one",
    )
