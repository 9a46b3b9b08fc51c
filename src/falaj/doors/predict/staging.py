"""Step one of a new plan: verify and load every release it names, beside what runs."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base.errors import FalajError, Unverified
from falaj.base.fenclog import LogWriter
from falaj.base.time import now
from falaj.doors.predict.channel import start
from falaj.doors.predict.loads import load_release, manifest_of
from falaj.doors.predict.remote import Remote
from falaj.facts.releases import Trust
from falaj.facts.serving import ArmPlan, Boot, LogKey, ModelPlan, TrafficPlan
from falaj.releases.verify import verify_release
from falaj.serving.counts import Histogram
from falaj.serving.journal import write_boot
from falaj.serving.loading import Loaded
from falaj.serving.plan import Split
from falaj.serving.requests import RequestIds

__all__ = ["Live", "Prepared", "Stage", "Trouble"]

STALE_S: Final = 3600.0
SHADOW_S: Final = 10.0
BULK_US: Final = 200.0  # a request that is predicted to cost more would be felt by others
BULK_BYTES: Final = (4 * 1024, 32 * 1024)


class Live:
    """One model under one plan: what answers, and how requests are split. Never changed."""

    def __init__(
        self,
        name: str,
        plan: ModelPlan,
        zone: str,
        stable: Loaded,
        canary: Remote | None,
        standby: Loaded | None,
        latencies: Histogram,
        server: str = "",
        shadow: Remote | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        self.zone = zone
        self.stable = stable
        self.canary = canary
        self.standby = standby
        self.shadow = shadow
        self.server = server
        self.split = Split(plan, server)
        self.latencies = latencies
        self.canary_timeout_ns = plan.canary.timeout_ms * 1_000_000 if plan.canary else 0
        self.since = time.time()
        # What a request costs before it is read: rows are guessed from its bytes.
        first, each = stable.cost_us
        self.base_us = 10.0 + first
        self.byte_us = 0.01 + each / (6.0 * max(stable.reader.width, 1))
        least, most = BULK_BYTES
        self.bulk_bytes = int(max(least, min(most, (BULK_US - self.base_us) / self.byte_us)))

    @property
    def answering(self) -> str:
        """The arm of the plan that answers as stable: standby, when stable was withdrawn."""
        return "stable" if self.stable.release == self.plan.stable.release else "standby"

    def predicted_us(self, size: int) -> float:
        """Microseconds that a request of so many bytes is expected to cost."""
        return self.base_us + self.byte_us * size

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


Far = dict[tuple[str, str, str], Remote]  # model, arm, release


class Trouble(NamedTuple):
    """What does not hold any more about something that runs."""

    code: str
    words: str


class Prepared:
    """A plan whose releases are all loaded. `problem`: what is missing, in words.

    near: models of this process by release. far: those with a process of their own.
    """

    def __init__(
        self, plan: TrafficPlan, digest: str, models: dict[str, Live], far: Far, problem: str = ""
    ) -> None:
        self.plan = plan
        self.digest = digest
        self.models = models
        self.far = far
        self.problem = problem

    @property
    def near(self) -> dict[str, Loaded]:
        found: dict[str, Loaded] = {}
        for live in self.models.values():
            for arm in (live.stable, live.standby):
                if arm is not None:
                    found[arm.release] = arm
        return found

    def without(self, name: str, words: str) -> Prepared | None:
        """The same plan with the warm previous release of one model in the place of stable."""
        live = self.models[name]
        back = live.standby
        if back is None or back.release == live.stable.release:
            return None
        went = Live(
            name,
            live.plan,
            live.zone,
            back,
            live.canary,
            None,
            Histogram(back.release),
            live.server,
            live.shadow,
        )
        return Prepared(self.plan, self.digest, self.models | {name: went}, self.far, words)

    def forget(self, current: Prepared | None) -> None:
        """End the processes that were started for this plan: it is not switched to."""
        for key, remote in self.far.items():
            if current is None or current.far.get(key) is not remote:
                remote.kill()

    @property
    def releases(self) -> set[str]:
        return {*self.near, *(release for _, _, release in self.far)}


class Stage:
    """Loads releases for one process. Private copies live under `.staged` and go after the load."""

    def __init__(
        self, root: Path, spool: Path, ids: RequestIds, trust: Path, server: str = ""
    ) -> None:
        self.root = root
        self.trust = trust
        self.trust_version = 0
        self.server = server
        self.spool = spool
        self.ids = ids
        self.began = now()
        self.number = 0
        self.staged = root / ".staged"
        # A model process dies with the thread that started it: these last as long as this one.
        self.starters = ThreadPoolExecutor(4, "starter")
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
        known = current.near if current else {}
        far: Far = {}
        asked = self._begin(plan, current, folders or {})
        try:
            problems = self._gather(asked, far, lenient=current is None)
            models = self._models(plan, trust, current, known, far, folders or {}, problems)
            if plan.log_key is not None:
                try_key(plan.log_key)
            slots = {str(slot): release for release, slot in self.ids.slots.items()}
            write_boot(
                self.spool, Boot(boot=self.ids.boot, at=self.began, pid=os.getpid(), slots=slots)
            )
        except BaseException:
            for future in asked.values():
                future.add_done_callback(_end)
            raise
        return Prepared(plan, digest, models, far, "; ".join(problems))

    def _begin(
        self, plan: TrafficPlan, current: Prepared | None, folders: Mapping[str, Path]
    ) -> dict[tuple[str, str, str], Future[Remote]]:
        """Start processes of arms that need one: while they load, stable is loaded here."""
        found: dict[tuple[str, str, str], Future[Remote]] = {}
        for name, model in plan.models.items():
            for arm in ("canary", "shadow"):
                planned: ArmPlan | None = getattr(model, arm)
                if planned is None:
                    continue
                key = (name, arm, planned.release)
                was = current.far.get(key) if current else None
                if was is not None and not was.condemned:
                    found[key] = Future()
                    found[key].set_result(was)
                    continue
                folder = folders.get(planned.release, self.root / planned.folder)
                self.number += 1
                into = self.staged / f"{self.ids.boot}-{self.number}"
                found[key] = self.starters.submit(
                    self._away, name, plan.environment, planned, folder, into
                )
        return found

    def _gather(
        self, asked: dict[tuple[str, str, str], Future[Remote]], far: Far, *, lenient: bool
    ) -> list[str]:
        problems = []
        for key, future in asked.items():
            try:
                far[key] = future.result()
            except FalajError as error:
                if not lenient:
                    raise
                problems.append(f"{key[1]}: {error}")
        return problems

    def _away(
        self, name: str, environment: str, planned: ArmPlan, folder: Path, into: Path
    ) -> Remote:
        """Start the process of one arm. Raises FalajError."""
        manifest = manifest_of(folder, planned.release)
        command = [
            *("--folder", str(folder), "--trust", str(self.trust)),
            *("--trust-version", str(self.trust_version), "--release", planned.release),
            *("--model", name, "--environment", environment),
        ]
        slot = self.ids.slot(planned.release)
        return Remote(planned.release, manifest, slot, command, into, start(command, into))

    def _models(
        self,
        plan: TrafficPlan,
        trust: Trust,
        current: Prepared | None,
        known: dict[str, Loaded],
        far: Far,
        folders: Mapping[str, Path],
        problems: list[str],
    ) -> dict[str, Live]:
        models: dict[str, Live] = {}
        for name, model in plan.models.items():

            def here(planned: ArmPlan, name: str = name) -> Loaded:
                folder = folders.get(planned.release, self.root / planned.folder)
                return self._loaded(name, plan.environment, planned, folder, trust, known)

            stable = here(model.stable)
            standby = None
            try:
                standby = here(model.standby) if model.standby is not None else None
            except FalajError as error:
                if current is not None:
                    raise
                problems.append(f"standby: {error}")
            was = current.models.get(name) if current else None
            same = was is not None and was.stable.release == stable.release
            live = Live(
                name,
                model,
                plan.zone,
                stable,
                far.get((name, "canary", model.canary.release)) if model.canary else None,
                standby,
                was.latencies if was and same else Histogram(stable.release),
                self.server,
                far.get((name, "shadow", model.shadow.release)) if model.shadow else None,
            )
            for arm, planned in ((live.canary, model.canary), (live.shadow, None)):
                if arm is not None:
                    arm.timeout_s = planned.timeout_ms / 1000 if planned else SHADOW_S
            if was and same:
                live.since = was.since
            models[name] = live
        return models

    def verify(self, prepared: Prepared, trust: Trust) -> dict[tuple[str, str], Trouble]:
        """Look again at the folders of what runs: (model, arm) -> the first finding."""
        told: dict[tuple[str, str], Trouble] = {}
        for name, live in prepared.models.items():
            for where in ("stable", "canary", "shadow", "standby"):
                arm: ArmPlan | None = getattr(live.plan, where)
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
                    code = found.findings[0].code if found.findings else ""
                    told[name, where] = Trouble(code, f"{name} {arm.folder}: {words}")
        return told

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
            known[planned.release] = load_release(
                folder,
                trust,
                into,
                release=planned.release,
                model=name,
                environment=environment,
                slot=self.ids.slot(planned.release),
            )
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


def _end(future: Future[Remote]) -> None:
    """Nobody will ask this process: the plan was refused. One that answers already is left alone."""
    if not future.cancelled() and future.exception() is None:
        remote = future.result()
        if remote.started is not None:
            remote.kill()


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
