"""From a release folder to a model in this process: verified, loaded, warm, probed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from falaj.base.digests import of_bytes
from falaj.base.errors import Unverified
from falaj.base.files import write_atomic
from falaj.base.time import now
from falaj.facts.releases import Manifest, Trust
from falaj.facts.trust import BadTrust, open_trust
from falaj.releases.verify import load_verified, read_manifest
from falaj.serving.loading import Loaded, load

__all__ = ["keep_seen", "load_release", "manifest_of", "read_trust", "seen_version"]

SEEN: Final = "trust.seen"


def load_release(
    folder: Path, trust: Trust, into: Path, *, release: str, model: str, environment: str, slot: int
) -> Loaded:
    """Load a release that verifies here and now; the copy in `into` is gone after it.

    Raises Unverified.
    """
    try:
        manifest = load_verified(
            folder, trust, into, release_id=release, now=now(), environment=environment
        )
        if manifest.model != model:
            raise Unverified(
                "serving.plan-model",
                f"{folder.name}: is a release of {manifest.model!r}, not of {model!r}",
                fix="apply the plan again from the control plane",
            )
        return load(into, manifest, release, slot)
    finally:
        # The engine holds its own memory; the copy has done its work.
        shutil.rmtree(into, ignore_errors=True)


def manifest_of(folder: Path, release: str) -> Manifest:
    """Read the manifest whose digest is the release's id. Raises Unverified.

    It says what a model takes and gives; whether it may be loaded is for its process to find out.
    """
    path = folder / "release.json"
    try:
        data = path.read_bytes()
        if of_bytes(data) != release:
            raise ValueError("its digest is not the planned one")
        return read_manifest(data)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise Unverified(
            "serving.plan-release",
            f"{folder.name}/{path.name}: {words}",
            why=f"the plan names {release}",
            fix="apply the plan again from the control plane",
        ) from None


def read_trust(path: Path, at_least: int = 0) -> Trust:
    """Read the trust root. Raises Unverified; an expired one is read: it verifies nothing new."""
    try:
        return open_trust(path.read_bytes(), now=now(), at_least=at_least, allow_expired=True)
    except (OSError, BadTrust) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise Unverified(
            "serving.trust",
            f"{path.name}: {words}",
            why="nothing can be verified without the trust root",
            fix="give the trust.json of the workspace that signed the release",
        ) from None


def seen_version(root: Path) -> int:
    """The newest trust root that was ever obeyed here; older ones are refused after a start, too."""
    try:
        return int((root / SEEN).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise Unverified(
            "serving.trust",
            f"{SEEN}: {error}",
            why="it says which trust root was the newest that was obeyed here",
            fix="write the number of the newest trust.json into it",
        ) from None


def keep_seen(root: Path, version: int) -> None:
    write_atomic(root / SEEN, str(version).encode())
