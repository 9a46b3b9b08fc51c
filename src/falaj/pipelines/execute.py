"""Run a plan: hits first, one execution per key, every answer by digest, parallel where it may."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import process
from falaj.base.errors import FalajError, Problem
from falaj.base.points import Series, pack
from falaj.base.time import now
from falaj.facts.checks import CheckResult
from falaj.facts.runs import Artifact, Attempt, Ending, Environment, StepRun, StepStatus
from falaj.pipelines import keys, rules
from falaj.pipelines.closure import Closure, Scanner
from falaj.pipelines.codecs import choose
from falaj.pipelines.declare import place_at
from falaj.pipelines.plan import Argument, Bound, Call, Given, Plan, Ref, Refs, canonical_value
from falaj.ports.blobs import BlobMissing, Blobs
from falaj.ports.cache import StepCache
from falaj.ports.codecs import Codec
from falaj.ports.datasets import Dataset
from falaj.ports.executor import MOVED, Executor, Hear, Order, Outcome, TellingExecutor

__all__ = ["Engine", "Executed", "OnStep"]

LEASE_S: Final = 60.0
BEAT_S: Final = 15.0
# What a step says beside its answer: in its outcome, its record and its cache entry.
SAID: Final = ("metrics", "points", "plots", "files", "params", "tags", "checks", "peak_mb")
OnStep = Callable[[str, str, float], None]


@dataclass
class Executed:
    """What came of a plan.

    artifacts: step run -> part -> artifact. lists: mapped call -> its elements. absent: calls that
    a condition left out.
    """

    steps: list[StepRun] = field(default_factory=list)
    artifacts: dict[str, dict[str, Artifact]] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    error: FalajError | None = None

    def has(self, call: str) -> bool:
        return call in self.artifacts or call in self.lists or call in self.absent


@dataclass(frozen=True)
class _Ready:
    """What is known of a call before its inputs are."""

    parts: dict[str, Any]
    closure: Closure


@dataclass(frozen=True)
class _Unit:
    """One step run: a call, or one element of a mapped call.

    bound: arguments that became known in the run, as an order tells them. values: of those, what
    is part of the key as a parameter. refs: the others, name -> step run.
    """

    id: str
    call: Call
    ready: _Ready
    bound: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Made:
    """What came of a unit. artifacts: None when it failed."""

    step: StepRun
    artifacts: dict[str, Artifact] | None = None
    error: FalajError | None = None


@dataclass
class Engine:
    """One run of one plan."""

    root: Path
    roots: Sequence[Path]
    scanner: Scanner
    blobs: Blobs
    cache: StepCache
    codecs: Sequence[Codec]
    environment: Environment
    datasets: Mapping[str, Dataset]
    executor: Executor
    pipeline: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    project: str = ""
    run: str = ""
    seed: int = 0
    at_once: int = 1
    clock: Callable[[], datetime] = now
    on_step: OnStep | None = None
    on_said: Hear | None = None
    fail_fast: bool = False
    owner: str = field(default_factory=process.owner_here)
    remade: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._held: set[str] = set()
        self.units: dict[str, _Unit] = {}
        self.remade_steps: dict[str, StepRun] = {}
        self._stopped = False
        self._mending = threading.RLock()
        self._tell_lock = threading.Lock()

    def execute(self, plan: Plan) -> Executed:
        """Run all that can run; one failure lets independent steps finish, unless fail_fast."""
        ready = self._prepare(plan)
        done = Executed()
        walk = _Walk(self, plan, ready, done)
        for call in plan.calls:
            self.tell(call.id, "planned", 0.0)
        with self._beating():
            if min(self.at_once, self.executor.at_once) <= 1:
                for call in plan.calls:
                    for unit in walk.units(call):
                        walk.take(unit, self._one(unit, done))
                        self._look(walk)
                    walk.close(call)
            else:
                self._parallel(walk, done)
        done.steps = [step for call in plan.calls for step in walk.steps(call)]
        for step in done.steps:
            done.metrics |= step.metrics
        errors = [walk.errors[step.step] for step in done.steps if step.step in walk.errors]
        if errors:
            done.error = FalajError.of(tuple(p for error in errors for p in error.problems))
        return done

    def _parallel(self, walk: _Walk, done: Executed) -> None:
        """Start what is ready until all is done. Facts are only written by this thread."""
        limit = float(min(self.at_once, self.executor.at_once))
        waiting = list(walk.plan.calls)
        queue: list[_Unit] = []
        running: dict[Future[_Made], _Unit] = {}
        with ThreadPoolExecutor(int(limit), thread_name_prefix="falaj-step") as pool:
            try:
                while waiting or queue or running:
                    self._look(walk)
                    for call in [c for c in waiting if walk.is_ready(c)]:
                        waiting.remove(call)
                        queue += walk.units(call)
                        walk.close(call)
                    load = sum(_cores(unit) for unit in running.values())
                    while queue and (not running or load + _cores(queue[0]) <= limit):
                        unit = queue.pop(0)
                        load += _cores(unit)
                        running[pool.submit(self._one, unit, done)] = unit
                    if not running:
                        continue  # what was opened had nothing to run; look again
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        unit = running.pop(future)
                        walk.take(unit, future.result())
                        walk.close(unit.call)
            except BaseException:
                self._stopped = True
                self.executor.close()  # else leaving the pool waits for steps of an ended run
                raise

    def _look(self, walk: _Walk) -> None:
        """With fail_fast, the first failure ends what runs; what has not begun is skipped."""
        if self.fail_fast and walk.errors and not self._stopped:
            self._stopped = True
            self.executor.close()

    def explain(self, plan: Plan) -> Executed:
        """Say what would be cached and why the rest would run. Runs nothing."""
        ready = self._prepare(plan)
        done = Executed()
        walk = _Walk(self, plan, ready, done)
        for call in plan.calls:
            unsure = [need for need in call.needs if not done.has(need)]
            units = [] if unsure else list(walk.units(call))
            for unit in units:
                walk.take(unit, self._explained(unit, done))
            if unsure:
                walk.taken[call.id] = [self._unsure(call, ready[call.id], unsure[0])]
            else:
                walk.close(call)
        done.steps = [step for call in plan.calls for step in walk.steps(call)]
        return done

    def _explained(self, unit: _Unit, done: Executed) -> _Made:
        parts = self._parts(unit, done)
        key = keys.key_of(parts)
        entry = self._hit(key, unit.call)
        if entry is not None:
            return self._of_entry(unit, key, parts, entry, now())
        old = self.cache.newest(unit.call.step.name)
        words = self._why(unit.call, parts, unit.ready.closure, old)
        return _Made(self.fact(unit.id, key, parts, StepStatus.SKIPPED, f"reruns: {words}"))

    def _unsure(self, call: Call, ready: _Ready, need: str) -> StepRun:
        """A step whose inputs are not known before the run."""
        old = self.cache.newest(call.step.name)
        parts = {**ready.parts, "inputs": (old or {}).get("parts", {}).get("inputs")}
        if old is not None:
            known = {n for n in old["parts"]["params"] if n not in ready.parts["params"]}
            kept = {n: v for n, v in old["parts"]["params"].items() if n in known}
            parts["params"] = {**ready.parts["params"], **kept}
        words = self._why(call, parts, ready.closure, old)
        if old is not None and words.startswith("its entry"):
            words = f"an input comes from {need}, which reruns"
        return self.fact(call.id, "", parts, StepStatus.SKIPPED, f"reruns: {words}")

    # -- before ----------------------------------------------------------------------------------

    def _prepare(self, plan: Plan) -> dict[str, _Ready]:
        """Code, files, variables and parameters of every call; findings all at once."""
        found: dict[str, _Ready] = {}
        findings: list[Problem] = []
        shared: dict[int, tuple[dict[str, Any], Closure]] = {}
        for call in plan.calls:
            try:
                if id(call.step) not in shared:
                    shared[id(call.step)] = self._of_step(call)
                common, closure = shared[id(call.step)]
            except FalajError as error:
                findings += error.problems
                continue
            given = {n: a for n, a in call.arguments.items() if isinstance(a, Given)}
            params = {name: canonical_value(a.value) for name, a in given.items()}
            found[call.id] = _Ready({**common, "params": params}, closure)
        if findings:
            raise FalajError.of(tuple(dict.fromkeys(findings)))
        return found

    def _of_step(self, call: Call) -> tuple[dict[str, Any], Closure]:
        """Parts of the key that all calls of a step share."""
        options, code = call.step.options, inspect.unwrap(call.step.function).__code__
        closure = self.scanner.closure(code.co_filename, code.co_name, also=call.step.file)
        parts = {
            "project": self.project,
            "step": call.step.name,
            "version": options.version,
            "code": closure.files,
            "reads": keys.reads_part(self.root, options, call.place),
            "env": keys.variables_part(options.env),
            "environment": keys.environment_part(self.environment),
            "seed": f"{keys.seed_of(self.seed, call.step.name):016x}",
        }
        if options.fresh is not None:
            parts["fresh"] = int(self.clock().timestamp() // options.fresh.total_seconds())
        return parts, closure

    def _parts(self, unit: _Unit, done: Executed) -> dict[str, Any]:
        parts = unit.ready.parts
        if unit.values:
            parts = {**parts, "params": {**parts["params"], **unit.values}}
        return {**parts, "inputs": self._inputs_part(unit, done)}

    def _inputs_part(self, unit: _Unit, done: Executed) -> dict[str, Any]:
        return {
            name: self._input_part(
                Ref(unit.refs[name], None, None) if name in unit.refs else argument, done
            )
            for name, argument in unit.call.arguments.items()
            if not isinstance(argument, Given) and name not in unit.values
        }

    def _input_part(self, argument: Argument, done: Executed) -> Any:
        match argument:
            case Bound(dataset=name):
                return keys.dataset_part(self.datasets[name].version)
            case Ref(call=made) if made in done.absent:
                return {"absent": True}
            case Ref(call=made) if made in done.lists:
                return [self._input_part(Ref(one, None, None), done) for one in done.lists[made]]
            case Ref(call=made, part=part):
                parts = done.artifacts[made]
                named = parts if part is None else {part: parts[part]}
                listed = [keys.artifact_part(artifact) for artifact in named.values()]
                return listed[0] if len(listed) == 1 else listed
            case Refs(items=items):
                return [self._input_part(item, done) for item in items]
            case _:
                raise AssertionError(argument)

    # -- one step --------------------------------------------------------------------------------

    def _one(self, unit: _Unit, done: Executed) -> _Made:
        if self._stopped:
            self.tell(unit.id, "skipped", 0.0)
            return _Made(self.fact(unit.id, "", {}, StepStatus.SKIPPED, "another step failed"))
        parts = self._parts(unit, done)
        key = keys.key_of(parts)
        started = now()
        if not unit.call.step.options.cache:
            return self._make(unit, key, parts, done, "cache=False")
        pause = 0.05
        while True:
            made = self._cached(unit, key, parts, started)
            if made is not None:
                return made
            fence = self.cache.claim(key, self.owner, LEASE_S)
            if fence is not None:
                break
            time.sleep(pause)  # another process makes it now
            pause = min(pause * 1.5, 1.0)
        self._held.add(key)
        try:
            # The other one may have finished between our look and our claim.
            made = self._cached(unit, key, parts, started) if fence > 1 else None
            if made is not None:
                return made
            old = self.cache.newest(unit.call.step.name)
            why = self._why(unit.call, parts, unit.ready.closure, old)
            return self._make(unit, key, parts, done, why, fence)
        finally:
            self._held.discard(key)
            self.cache.free(key, self.owner)

    def _cached(self, unit: _Unit, key: str, parts: dict[str, Any], started: Any) -> _Made | None:
        entry = self._hit(key, unit.call)
        if entry is None:
            return None
        made = self._of_entry(unit, key, parts, entry, started)
        self.tell(unit.id, "cached", 0.0)
        return made

    def _of_entry(
        self, unit: _Unit, key: str, parts: dict[str, Any], entry: Mapping[str, Any], started: Any
    ) -> _Made:
        outputs = tuple(_artifact(output) for output in entry["outputs"])
        step = self.fact(
            unit.id,
            key,
            parts,
            StepStatus.CACHED,
            "cached",
            started=started,
            outputs=outputs,
            origin=entry.get("run", ""),
            log=entry.get("log", ""),
            **_said(entry),
        )
        return _Made(step, {output.name: output for output in outputs})

    def _hit(self, key: str, call: Call) -> dict[str, Any] | None:
        """The entry of a key, if its bytes are all here and what it loaded is unchanged."""
        if not call.step.options.cache:
            return None
        entry = self.cache.get(key)
        if entry is None:
            return None
        wanted = {digest for output in entry["outputs"] for digest in output["files"].values()}
        if not all(self.blobs.has(digest) for digest in wanted):
            self.cache.forget(key)
            return None
        for name, digest in entry.get("extras", {}).items():
            path = self.scanner.place(name)
            if not Path(path).exists() or self.scanner.digest(path) != digest:
                self.cache.forget(key)
                return None
        return entry

    def _make(
        self,
        unit: _Unit,
        key: str,
        parts: dict[str, Any],
        done: Executed,
        why: str,
        fence: int | None = None,
    ) -> _Made:
        self.tell(unit.id, "running", 0.0)
        begun = now()
        outcome, attempts = self._tries(unit, done)
        if outcome.lost_input:
            return self._again(unit, done, outcome.lost_input)
        facts: dict[str, Any] = {
            "started": begun,
            "seconds": sum(attempt.seconds for attempt in attempts),
            "cpu_s": sum(attempt.cpu_s for attempt in attempts),
            "log": attempts[-1].log,
            "attempts": tuple(attempts),
            **{name: getattr(outcome, name) for name in SAID},
            "resources": dict(unit.call.step.options.resources),
        }
        if outcome.ending is Ending.LOST and self._stopped:
            self.tell(unit.id, "skipped", facts["seconds"])
            words = "another step failed"
            return _Made(self.fact(unit.id, key, parts, StepStatus.SKIPPED, words, **facts))
        if outcome.ending is not Ending.DONE:
            error = self._failure(unit, done, outcome, attempts)
            self.tell(unit.id, "failed", facts["seconds"])
            step = self.fact(unit.id, key, parts, StepStatus.FAILED, str(error), **facts)
            return _Made(step, None, error)
        # Only the holder of the newest fence writes: one that slept past its lease does not.
        if fence is not None and self.cache.claim(key, self.owner, LEASE_S) == fence:
            self.cache.put(key, unit.call.step.name, self._entry(unit, parts, outcome, facts))
        self.tell(unit.id, "executed", facts["seconds"])
        outputs = outcome.outputs
        step = self.fact(unit.id, key, parts, StepStatus.EXECUTED, why, outputs=outputs, **facts)
        return _Made(step, {output.name: output for output in outputs})

    def _entry(
        self, unit: _Unit, parts: dict[str, Any], outcome: Outcome, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        closure = unit.ready.closure
        return {
            "run": self.run,
            "parts": parts,
            "outputs": [msgspec.to_builtins(output) for output in outcome.outputs],
            **{name: msgspec.to_builtins(getattr(outcome, name)) for name in SAID},
            "log": facts["log"],
            "extras": outcome.extras,
            "definitions": closure.definitions,
            "parents": closure.parents,
            "seconds": facts["seconds"],
            "cpu_s": facts["cpu_s"],
        }

    def _tries(self, unit: _Unit, done: Executed) -> tuple[Outcome, list[Attempt]]:
        """Attempts until an answer is stored or the rules say stop; each with its own log."""
        options = unit.call.step.options
        attempts: list[Attempt] = []
        before: dict[str, Any] = {}
        while True:
            began = now()
            outcome = self._outcome(self._order(unit, done, len(attempts) + 1))
            said = {"metrics": outcome.metrics, "points": outcome.points}
            if not any(said.values()) and outcome.ending is not Ending.DONE:
                outcome = msgspec.structs.replace(outcome, **before)  # of a try that came further
            before = said if any(said.values()) else before
            reason = f"{outcome.error}: {outcome.message}" if outcome.error else outcome.message
            attempts.append(
                Attempt(
                    number=len(attempts) + 1,
                    ending=outcome.ending,
                    started=began,
                    seconds=outcome.seconds,
                    cpu_s=outcome.cpu_s,
                    log=self.blobs.put(outcome.log.encode(errors="replace")) if outcome.log else "",
                    reason=reason,
                )
            )
            again = not (outcome.lost_input or self._stopped) and rules.may_retry(
                outcome.ending,
                attempt=len(attempts),
                retries=options.retries,
                listed=outcome.listed
                or (outcome.ending is Ending.TIMEOUT and TimeoutError in options.retry_on),
            )
            if not again:
                return outcome, attempts
            self.tell(unit.id, "retried", outcome.seconds)
            jitter = int.from_bytes(os.urandom(2), "big") / 65536
            time.sleep(rules.delay_s(len(attempts) - 1, jitter=jitter))

    def _outcome(self, order: Order) -> Outcome:
        """One attempt. A process that went away has said what was heard of it meanwhile."""
        if not isinstance(self.executor, TellingExecutor):
            return self.executor.run(order)
        metrics: dict[str, float] = {}
        lines: dict[str, Series] = {}

        def hear(values: Mapping[str, float], new: Sequence[Series]) -> None:
            metrics.update(values)
            for part in new:
                lines.setdefault(part.name, Series(part.name)).extend(part)
            if self.on_said is not None:
                self.on_said(values, new)

        outcome = self.executor.run_telling(order, hear)
        if outcome.ending not in (Ending.LOST, Ending.TIMEOUT) or outcome.metrics:
            return outcome
        return msgspec.structs.replace(
            outcome,
            metrics=metrics,
            points=self.blobs.put(pack(list(lines.values()))) if lines else outcome.points,
        )

    def _order(self, unit: _Unit, done: Executed, attempt: int) -> Order:
        call, options = unit.call, unit.call.step.options
        lists = {need: done.lists[need] for need in call.needs if need in done.lists}
        reads = [
            *call.needs,
            *unit.refs.values(),
            *(one for made in lists.values() for one in made),
        ]
        bound = [a.dataset for a in call.arguments.values() if isinstance(a, Bound)]
        return Order(
            run=self.run,
            root=str(self.root),
            roots=tuple(map(str, self.roots)),
            pipeline=self.pipeline,
            parameters=dict(self.given),
            call=call.id,
            id=unit.id,
            attempt=attempt,
            seed=self.seed,
            timeout_s=None if options.timeout is None else options.timeout.total_seconds(),
            isolate=options.isolate,
            bound=unit.bound,
            made={one: done.artifacts[one] for one in reads if one in done.artifacts},
            lists=lists,
            code=unit.ready.closure.files,
            dynamic=unit.ready.closure.dynamic,
            datasets={name: self.datasets[name].version.content for name in bound},
            resources=dict(options.resources),
            variables=keys.variables_part(options.env),
        )

    def _again(self, unit: _Unit, done: Executed, lost: str) -> _Made:
        """An input vanished after it was found: make it again, then this step."""
        with self._mending:
            if lost in self.remade:
                raise FalajError(
                    "pipelines.artifact-lost",
                    f"{unit.id}: what {lost} made was stored and cannot be read back",
                    place=unit.call.place,
                    why="it was made again, and lost again",
                    fix="look at the disk that holds the workspace's blobs",
                )
            self.remade.add(lost)
            maker = self.units[lost]
            self.cache.forget(keys.key_of(self._parts(maker, done)))
            made = self._one(maker, done)
            if made.artifacts is None:
                assert made.error is not None  # noqa: S101 it failed
                return _Made(
                    self.fact(unit.id, "", {}, StepStatus.SKIPPED, f"needs {lost}"),
                    None,
                    made.error,
                )
            done.artifacts[lost] = made.artifacts
            self.remade_steps[lost] = made.step
        return self._one(unit, done)

    def _why(
        self, call: Call, parts: dict[str, Any], closure: Closure, old: dict[str, Any] | None
    ) -> str:
        if not call.step.options.cache:
            return "cache=False"
        new = {"parts": parts, "definitions": closure.definitions, "parents": closure.parents}
        return rules.why_reruns(old, new)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Renew the claims of all steps that run now."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_S):
                for key in list(self._held):
                    self.cache.claim(key, self.owner, LEASE_S)

        thread = threading.Thread(target=beat, name="falaj-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def fact(
        self, id: str, key: str, parts: dict[str, Any], status: StepStatus, why: str, **more: Any
    ) -> StepRun:
        more.setdefault("started", now())
        return StepRun(step=id, key=key, parts=parts, status=status, why=why, **more)

    def tell(self, id: str, status: str, seconds: float) -> None:
        if self.on_step is not None:
            with self._tell_lock:
                self.on_step(id, status, seconds)

    # -- telling ---------------------------------------------------------------------------------

    def _failure(
        self, unit: _Unit, done: Executed, outcome: Outcome, attempts: Sequence[Attempt]
    ) -> FalajError:
        """At most 16 lines when printed: the user's line first, the message once, never ours."""
        name, call = unit.id, unit.call
        code, message = "pipelines.step-failed", f"{name}: {outcome.error}: {outcome.message}"
        if outcome.ending is Ending.TIMEOUT:
            code = "pipelines.step-timeout"
            message = f"{name}: not finished after {call.step.options.timeout}"
        elif outcome.ending is Ending.BAD_ANSWER:
            code = "pipelines.answer-type"
            message = f"{name}: its answer cannot be stored: {outcome.message}"
        elif outcome.ending is Ending.LOST:
            code = "pipelines.step-lost"
            message = f"{name}: its process went away: {outcome.message}"
        elif outcome.error == MOVED:
            code = "pipelines.project-changed"
            message = f"{name}: {outcome.message} while the run went on"
        elif outcome.error == "SystemExit":
            message = f"{name}: called exit with {outcome.message}"
        places = [place_at(o.file, o.line, self.root, o.function) for o in outcome.lines]
        own = inspect.unwrap(call.step.function).__code__
        home = place_at(own.co_filename, own.co_firstlineno, self.root, own.co_name)
        lines = [
            f"{place.file}:{place.line} {place.note}  {place.excerpt[0][1] if place.excerpt else ''}"
            for place in places[1:][-4:]
        ]
        lines.append(f"inputs: {self._inputs_text(unit, done)}")
        kept = ", ".join(list(done.artifacts)[:8]) + (" ..." if len(done.artifacts) > 8 else "")
        seconds = sum(attempt.seconds for attempt in attempts)
        after = f"after {seconds:.1f} s, attempt {len(attempts)}"
        lines.append(f"{after}; {kept} kept" if kept else after)
        return FalajError(
            code,
            message,
            place=places[0] if places else home,
            why="\n".join(lines),
            fix="run again: finished steps are kept"
            if outcome.error == MOVED
            else f"mend the line, then run again: {name} runs anew, finished steps are kept",
        )

    def _inputs_text(self, unit: _Unit, done: Executed) -> str:
        words = []
        for name, argument in unit.call.arguments.items():
            if "value" in unit.bound.get(name, {}):
                argument = Given(unit.bound[name]["value"])  # noqa: PLW2901 known by now
            match argument:
                case Given(value=value):
                    text = repr(value)
                    words.append(f"{name} = {text if len(text) <= 60 else text[:57] + '...'}")
                case Bound(dataset=dataset):
                    words.append(f"{name} = dataset {dataset}")
                case Ref(call=made) if made in done.lists and name not in unit.refs:
                    words.append(f"{name} = {len(done.lists[made])} answers")
                case Ref(call=made) if made in done.absent:
                    words.append(f"{name} = nothing, {made} was skipped")
                case Ref(call=made, part=part):
                    made = unit.refs.get(name, made)
                    parts = done.artifacts[made]
                    artifact = parts[part] if part else next(iter(parts.values()))
                    rows = "" if artifact.rows is None else f", {artifact.rows} rows"
                    words.append(f"{name} = {made} ({artifact.digest[:15]}..{rows})")
                case Refs(items=items):
                    words.append(f"{name} = {len(items)} answers")
        text = "; ".join(words) or "none"
        return text if len(text) <= 400 else text[:397] + "..."


@dataclass
class _Walk:
    """Where a run stands: which calls are open, what each of their step runs came to."""

    engine: Engine
    plan: Plan
    ready: Mapping[str, _Ready]
    done: Executed
    taken: dict[str, list[StepRun]] = field(default_factory=dict)
    open: dict[str, list[str]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    errors: dict[str, FalajError] = field(default_factory=dict)

    def is_ready(self, call: Call) -> bool:
        return all(need in self.ended for need in call.needs)

    def units(self, call: Call) -> list[_Unit]:
        """Step runs of a call whose needs have ended; those that cannot run are recorded."""
        done = self.done
        self.open[call.id], self.taken[call.id] = [], []
        lacking = [need for need in call.needs if not done.has(need)]
        if lacking:
            self._skip(call, f"needs {lacking[0]}, which did not finish")
            return []
        if call.when is not None:
            condition = self._condition(call)
            if condition is not True:
                self._skip(call, condition or f"its condition, {call.when.call}, does not hold")
                if not condition:
                    done.absent.add(call.id)
                return []
        bound, values = self._absent(call)
        if not call.each:
            units = [_Unit(call.id, call, self.ready[call.id], bound, values)]
        else:
            units = list(self._elements(call, bound, values))
        self.open[call.id] = [unit.id for unit in units]
        for unit in units:
            self.engine.units[unit.id] = unit
        return units

    def _condition(self, call: Call) -> bool | str:
        """Whether it holds; words when it cannot be told."""
        assert call.when is not None  # noqa: S101 asked with a condition only
        try:
            return bool(self._plain(call.when))
        except BlobMissing:
            return f"needs {call.when.call}, whose answer is gone"

    def _plain(self, ref: Ref) -> Any:
        """The value of an answer that the walk itself has to know."""
        parts = self.done.artifacts[ref.call]
        artifact = parts[ref.part or "result"]
        codec = choose(self.engine.codecs, ref.kind)
        assert codec is not None  # noqa: S101 the plan checked it
        return codec.read(artifact, ref.kind, self.engine.blobs)

    def _absent(self, call: Call) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """What stands for answers of steps that were left out: a default, or None."""
        names = {
            name: argument
            for name, argument in call.arguments.items()
            if isinstance(argument, Ref) and argument.call in self.done.absent
        }
        bound: dict[str, dict[str, Any]] = {name: {"absent": True} for name in names}
        return bound, {name: canonical_value(ref.absent) for name, ref in names.items()}

    def _elements(
        self, call: Call, bound: dict[str, dict[str, Any]], values: dict[str, Any]
    ) -> Iterator[_Unit]:
        items, ready = call.arguments[call.each], self.ready[call.id]
        assert isinstance(items, Ref)  # noqa: S101 the plan made it so
        if items.call in self.done.lists:
            for number, made in enumerate(self.done.lists[items.call], 1):
                more = {call.each: {"ref": made}}
                refs = {call.each: made}
                yield _Unit(f"{call.id}:{number}", call, ready, {**bound, **more}, values, refs)
            return
        for number, value in enumerate(self._plain(items), 1):
            plain = {call.each: {"value": msgspec.to_builtins(value)}}
            given = {call.each: canonical_value(value)}
            yield _Unit(f"{call.id}:{number}", call, ready, {**bound, **plain}, {**values, **given})

    def _skip(self, call: Call, why: str) -> None:
        self.taken[call.id].append(
            self.engine.fact(call.id, "", {}, StepStatus.SKIPPED, why, started=now())
        )
        self.engine.tell(call.id, "skipped", 0.0)

    def take(self, unit: _Unit, made: _Made) -> None:
        """Record one step run. What was made again meanwhile takes its old place."""
        self.taken[unit.call.id].append(made.step)
        self.open[unit.call.id].remove(unit.id)
        if made.artifacts is not None:
            self.done.artifacts[unit.id] = made.artifacts
        if made.error is not None:
            self.errors[unit.id] = made.error

    def close(self, call: Call) -> None:
        """A call has ended when all of its step runs have."""
        if self.open[call.id]:
            return
        self.ended.add(call.id)
        if call.each and not any(s.status is StepStatus.SKIPPED for s in self.taken[call.id]):
            steps = self.steps(call)
            if all(step.step in self.done.artifacts for step in steps):
                self.done.lists[call.id] = tuple(step.step for step in steps)

    def steps(self, call: Call) -> list[StepRun]:
        """Step runs of a call in the order of its elements."""
        found = [self.engine.remade_steps.get(s.step, s) for s in self.taken.get(call.id, [])]
        return (
            sorted(found, key=lambda step: int(step.step.rpartition(":")[2]))
            if (call.each and len(found) > 1)
            else found
        )


def _cores(unit: _Unit) -> float:
    return float(unit.call.step.options.resources.get("cpu", 1))


def _artifact(plain: Mapping[str, Any]) -> Artifact:
    return Artifact(**plain)


def _said(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the step said when it ran. Entries of earlier versions hold less, and points in full."""
    kept = {name: entry[name] for name in SAID if name in entry}
    if not isinstance(kept.get("points", ""), str):
        del kept["points"]
    if "checks" in kept:
        kept["checks"] = msgspec.convert(kept["checks"], tuple[CheckResult, ...])
    return kept
