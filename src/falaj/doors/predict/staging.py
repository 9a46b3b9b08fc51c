"""Step one of a new plan: verify and load every release it names, beside what runs."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from falaj.base.errors import FalajError, Unverified
from falaj.base.fenclog import LogWriter
from falaj.base.files import write_atomic
from falaj.base.time import now
from falaj.facts.releases import Trust
from falaj.facts.serving import ArmPlan, Boot, LogKey, ModelPlan, TrafficPlan
from falaj.facts.trust import BadTrust, open_trust
from falaj.releases.verify import load_verified, verify_release
from falaj.serving.counts import Histogram
from falaj.serving.journal import write_boot
from falaj.serving.loading import Loaded, load
from falaj.serving.plan import Split
from falaj.serving.requests import RequestIds

__all__ = ["Live", "Prepared", "Stage", "keep_seen", "read_trust", "seen_version"]

STALE_S: Final = 3600.0
SEEN: Final = "trust.seen"


class Live:
    """One model under one plan: what answers, and how requests are split. Never changed."""

    def __init__(
        self,
        name: str,
        plan: ModelPlan,
        zone: str,
        stable: Loaded,
        canary: Loaded | None,
        standby: Loaded | None,
        latencies: Histogram,
        server: str = "",
    ) -> None:
        self.name = name
        self.plan = plan
        self.zone = zone
        self.stable = stable
        self.canary = canary
        self.standby = standby
        self.split = Split(plan, server)
        self.latencies = latencies
        self.canary_timeout_ns = plan.canary.timeout_ms * 1_000_000 if plan.canary else 0
        self.since = time.time()

    def version(self, version: str) -> Loaded | None:
        """Return the arm that answers as this version (or release id)."""
        for loaded in (self.stable, self.canary):
            if loaded and version in (loaded.manifest.version, loaded.release):
                return loaded
        return None

    @property
    def versions(self) -> list[str]:
        found = [self.stable.manifest.version]
        if self.canary and self.canary.manifest.version not in found:
            found.append(self.canary.manifest.version)
        return found


class Prepared:
    """A plan whose releases are all in memory. `problem`: what is missing, in words."""

    def __init__(
        self, plan: TrafficPlan, digest: str, models: dict[str, Live], problem: str = ""
    ) -> None:
        self.plan = plan
        self.digest = digest
        self.models = models
        self.problem = problem

    @property
    def loaded(self) -> dict[str, Loaded]:
        found: dict[str, Loaded] = {}
        for live in self.models.values():
            for arm in (live.stable, live.canary, live.standby):
                if arm is not None:
                    found[arm.release] = arm
        return found


class Stage:
    """Loads releases for one process. Private copies live under `.staged` and go after the load."""

    def __init__(self, root: Path, spool: Path, ids: RequestIds, server: str = "") -> None:
        self.root = root
        self.server = server
        self.spool = spool
        self.ids = ids
        self.began = now()
        self.number = 0
        self.staged = root / ".staged"
        self._sweep()

    def prepare(
        self,
        plan: TrafficPlan,
        digest: str,
        trust: Trust,
        current: Prepared | None,
        *,
        folders: Mapping[str, Path] | None = None,
    ) -> Prepared:
        """Load what the plan names and is not loaded yet; the boot record is durable after it.

        Raises FalajError: then nothing has changed. Only the first plan of a process may lack a
        canary or standby: a server that cannot load its canary must still answer as stable, and
        each request of the missing canary counts as its error.
        """
        known = dict(current.loaded) if current else {}
        lenient = current is None
        problems: list[str] = []
        models: dict[str, Live] = {}
        for name, model in plan.models.items():
            arms: dict[str, Loaded | None] = {"stable": None, "canary": None, "standby": None}
            for arm in arms:
                planned: ArmPlan | None = getattr(model, arm)
                if planned is None:
                    continue
                folder = (folders or {}).get(planned.release, self.root / planned.folder)
                try:
                    arms[arm] = self._loaded(name, plan.environment, planned, folder, trust, known)
                except FalajError as error:
                    if arm == "stable" or not lenient:
                        raise
                    problems.append(f"{arm}: {error}")
            stable = arms["stable"]
            assert stable is not None  # noqa: S101 -- a plan always has one; told to mypy
            was = current.models.get(name) if current else None
            same = was is not None and was.stable.release == stable.release
            latencies = was.latencies if was and same else Histogram(stable.release)
            live = Live(
                name,
                model,
                plan.zone,
                stable,
                arms["canary"],
                arms["standby"],
                latencies,
                self.server,
            )
            if was and same:
                live.since = was.since
            models[name] = live
        if plan.log_key is not None:
            try_key(plan.log_key)
        slots = {str(slot): release for release, slot in self.ids.slots.items()}
        write_boot(
            self.spool, Boot(boot=self.ids.boot, at=self.began, pid=os.getpid(), slots=slots)
        )
        return Prepared(plan, digest, models, "; ".join(problems))

    def verify(self, prepared: Prepared, trust: Trust) -> str:
        """Look again at the folders of what runs; the first finding in words, or nothing."""
        for name, live in prepared.models.items():
            for arm in (live.plan.stable, live.plan.canary):
                if arm is None:
                    continue
                found = verify_release(
                    self.root / arm.folder,
                    trust,
                    release_id=arm.release,
                    now=now(),
                    environment=prepared.plan.environment,
                    running=True,
                )
                if not found.holds:
                    words = found.findings[0].message if found.findings else "no manifest"
                    return f"{name} {arm.folder}: {words}"
        return ""

    def _loaded(
        self,
        name: str,
        environment: str,
        planned: ArmPlan,
        folder: Path,
        trust: Trust,
        known: dict[str, Loaded],
    ) -> Loaded:
        if planned.release not in known:
            self.number += 1
            into = self.staged / f"{self.ids.boot}-{self.number}"
            try:
                manifest = load_verified(
                    folder,
                    trust,
                    into,
                    release_id=planned.release,
                    now=now(),
                    environment=environment,
                )
                if manifest.model != name:
                    raise Unverified(
                        "serving.plan-model",
                        f"{planned.folder}: is a release of {manifest.model!r}, not of {name!r}",
                        fix="apply the plan again from the control plane",
                    )
                slot = self.ids.slot(planned.release)
                known[planned.release] = load(into, manifest, planned.release, slot)
            finally:
                # The engine holds its own memory; the copy has done its work.
                shutil.rmtree(into, ignore_errors=True)
        loaded = known[planned.release]
        if loaded.manifest.model != name:
            words = f"{planned.release}: is a release of {loaded.manifest.model!r}, not of {name!r}"
            raise Unverified("serving.plan-model", words, fix="apply a plan that names it rightly")
        return loaded

    def _sweep(self) -> None:
        """Remove copies that a killed process left."""
        self.staged.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.staged.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


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


def try_key(key: LogKey) -> None:
    """Seal once, here: what it imports takes 50 ms, which no answer should wait for."""
    try:
        LogWriter(base64.b64decode(key.public), {})
    except ValueError:  # a point of small order: everybody could read
        raise FalajError(
            "serving.plan-field",
            "plan.json: log_key.public: nothing can be sealed under it",
            fix="apply the plan again from the control plane",
        ) from None
