"""Run a plan in this process: hits first, one execution per key, every answer by digest."""

from __future__ import annotations

import copy
import inspect
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import process
from falaj.base.errors import FalajError, Problem
from falaj.base.time import now
from falaj.facts.runs import Artifact, Environment, StepRun, StepStatus
from falaj.pipelines import keys, rules
from falaj.pipelines.capture import Log, StepTimeout, captured, limited, seeded
from falaj.pipelines.closure import Closure, Scanner
from falaj.pipelines.codecs import choose
from falaj.pipelines.context import RUNNING, Running
from falaj.pipelines.declare import place_at
from falaj.pipelines.loading import project_modules, user_places
from falaj.pipelines.plan import (
    Argument,
    Bound,
    Call,
    Given,
    Plan,
    Ref,
    Refs,
    canonical_value,
    outputs_of,
    show,
)
from falaj.ports.blobs import BlobMissing, Blobs
from falaj.ports.cache import StepCache
from falaj.ports.codecs import BadValue, Codec
from falaj.ports.datasets import Dataset

__all__ = ["Executed", "Executor", "OnStep"]

LEASE_S: Final = 60.0
BEAT_S: Final = 15.0
OnStep = Callable[[str, str, float], None]


@dataclass
class Executed:
    """What came of a plan. artifacts: call -> part -> artifact."""

    steps: list[StepRun] = field(default_factory=list)
    artifacts: dict[str, dict[str, Artifact]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    error: FalajError | None = None


@dataclass(frozen=True)
class _Ready:
    """What is known of a call before its inputs are."""

    parts: dict[str, Any]
    closure: Closure


class _Lost(Exception):
    """The bytes of an input are gone or altered."""

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call = call


@dataclass
class Executor:
    """One run of one plan."""

    root: Path
    roots: Sequence[Path]
    blobs: Blobs
    cache: StepCache
    codecs: Sequence[Codec]
    environment: Environment
    datasets: Mapping[str, Dataset]
    project: str = ""
    run: str = ""
    seed: int = 0
    on_step: OnStep | None = None
    owner: str = field(default_factory=process.owner_here)
    remade: set[str] = field(default_factory=set)

    def execute(self, plan: Plan) -> Executed:
        """Run all that can run; one failure lets independent steps finish."""
        ready = self._prepare(plan)
        done = Executed()
        for call in plan.calls:
            lacking = [need for need in call.needs if need not in done.artifacts]
            if lacking:
                why = f"needs {lacking[0]}, which did not finish"
                step = self._fact(call, "", {}, StepStatus.SKIPPED, why, started=now())
                self._tell(call, "skipped", 0.0)
            else:
                step = self._one(call, ready[call.id], done, plan)
            done.steps.append(step)
        return done

    def explain(self, plan: Plan) -> Executed:
        """Say what would be cached and why the rest would run. Runs nothing."""
        ready = self._prepare(plan)
        done = Executed()
        for call in plan.calls:
            done.steps.append(self._explained(call, ready[call.id], done))
        return done

    def _explained(self, call: Call, ready: _Ready, done: Executed) -> StepRun:
        reruns = [need for need in call.needs if need not in done.artifacts]
        entry = None
        old = self.cache.newest(call.step.name)
        parts = dict(ready.parts)
        if reruns:
            parts["inputs"] = (old or {}).get("parts", {}).get("inputs")
        else:
            parts["inputs"] = self._inputs_part(call, done)
            entry = self._hit(keys.key_of(parts), call)
        if entry is not None:
            self._take(call, entry, done)
            key = keys.key_of(parts)
            return self._fact(call, key, parts, StepStatus.CACHED, "cached", started=now())
        words = self._why(call, parts, ready.closure, old)
        if reruns and old is not None and words.startswith("its entry"):
            words = f"an input comes from {reruns[0]}, which reruns"
        key = "" if reruns else keys.key_of(parts)
        return self._fact(call, key, parts, StepStatus.SKIPPED, f"reruns: {words}", started=now())

    # -- before ----------------------------------------------------------------------------------

    def _prepare(self, plan: Plan) -> dict[str, _Ready]:
        """Code, files, variables and parameters of every call; findings all at once."""
        scanner = Scanner(self.roots, base=self.root, memo=self.cache)
        self._scanner = scanner
        found: dict[str, _Ready] = {}
        findings: list[Problem] = []
        for call in plan.calls:
            options, code = call.step.options, inspect.unwrap(call.step.function).__code__
            try:
                reads = keys.reads_part(self.root, options, call.place)
            except FalajError as error:
                findings += error.problems
                continue
            closure = scanner.closure(code.co_filename, code.co_name, also=call.step.file)
            given = {n: a for n, a in call.arguments.items() if isinstance(a, Given)}
            parts = {
                "project": self.project,
                "step": call.step.name,
                "version": options.version,
                "code": closure.files,
                "reads": reads,
                "env": keys.variables_part(options.env),
                "params": {name: canonical_value(a.value) for name, a in given.items()},
                "environment": keys.environment_part(self.environment),
                "seed": f"{keys.seed_of(self.seed, call.step.name):016x}",
            }
            found[call.id] = _Ready(parts, closure)
        if findings:
            raise FalajError.of(tuple(dict.fromkeys(findings)))
        return found

    def _inputs_part(self, call: Call, done: Executed) -> dict[str, Any]:
        return {
            name: self._input_part(argument, done)
            for name, argument in call.arguments.items()
            if not isinstance(argument, Given)
        }

    def _input_part(self, argument: Argument, done: Executed) -> Any:
        match argument:
            case Bound(dataset=name):
                return keys.dataset_part(self.datasets[name].version)
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

    def _one(self, call: Call, ready: _Ready, done: Executed, plan: Plan) -> StepRun:
        parts = {**ready.parts, "inputs": self._inputs_part(call, done)}
        key = keys.key_of(parts)
        started = now()
        if not call.step.options.cache:
            return self._make(call, ready, key, parts, done, "cache=False", plan)
        pause = 0.05
        while True:
            step = self._cached(call, key, parts, done, started)
            if step is not None:
                return step
            fence = self.cache.claim(key, self.owner, LEASE_S)
            if fence is not None:
                break
            time.sleep(pause)  # another process makes it now
            pause = min(pause * 1.5, 1.0)
        try:
            with self._beating(key):
                # The other one may have finished between our look and our claim.
                step = self._cached(call, key, parts, done, started)
                if step is not None:
                    return step
                why = self._why(call, parts, ready.closure, self.cache.newest(call.step.name))
                return self._make(call, ready, key, parts, done, why, plan, fence)
        finally:
            self.cache.free(key, self.owner)

    def _cached(
        self, call: Call, key: str, parts: dict[str, Any], done: Executed, started: Any
    ) -> StepRun | None:
        entry = self._hit(key, call)
        if entry is None:
            return None
        outputs = self._take(call, entry, done)
        self._tell(call, "cached", 0.0)
        return self._fact(
            call,
            key,
            parts,
            StepStatus.CACHED,
            "cached",
            started=started,
            outputs=outputs,
            origin=entry.get("run", ""),
            log=entry.get("log", ""),
        )

    def _hit(self, key: str, call: Call) -> dict[str, Any] | None:
        """The entry of a key, if its bytes are all here and what it loaded is unchanged."""
        if not call.step.options.cache:
            return None
        entry = self.cache.get(key)
        if entry is None:
            return None
        outputs = [msgspec.convert(output, Artifact) for output in entry["outputs"]]
        digests = {digest for output in outputs for digest in output.files.values()}
        if not all(self.blobs.has(digest) for digest in digests):
            self.cache.forget(key)
            return None
        for name, digest in entry.get("extras", {}).items():
            path = self._scanner.place(name)
            if not Path(path).exists() or self._scanner.digest(path) != digest:
                self.cache.forget(key)
                return None
        return entry

    def _take(self, call: Call, entry: Mapping[str, Any], done: Executed) -> tuple[Artifact, ...]:
        outputs = tuple(msgspec.convert(output, Artifact) for output in entry["outputs"])
        done.artifacts[call.id] = {output.name: output for output in outputs}
        done.metrics |= entry.get("metrics", {})
        return outputs

    def _make(
        self,
        call: Call,
        ready: _Ready,
        key: str,
        parts: dict[str, Any],
        done: Executed,
        why: str,
        plan: Plan,
        fence: int | None = None,
    ) -> StepRun:
        self._tell(call, "running", 0.0)
        attempt = _Attempt(self, call, done)
        try:
            outputs = attempt.run()
        except _Lost as lost:
            return self._again(call, ready, done, plan, lost)
        log = self.blobs.put(attempt.log.text().encode(errors="replace"))
        facts: dict[str, Any] = {
            "started": attempt.started,
            "seconds": attempt.seconds,
            "cpu_s": attempt.cpu_s,
            "log": log,
        }
        if outputs is None:
            error = attempt.failure(done)
            done.error = error if done.error is None else _joined(done.error, error)
            self._tell(call, "failed", attempt.seconds)
            return self._fact(call, key, parts, StepStatus.FAILED, str(error), **facts)
        entry = {
            "run": self.run,
            "parts": parts,
            "outputs": [msgspec.to_builtins(output) for output in outputs],
            "metrics": attempt.running.metrics,
            "points": [list(point) for point in attempt.running.points],
            "log": log,
            "extras": self._extras(ready.closure),
            "definitions": ready.closure.definitions,
            "parents": ready.closure.parents,
            "seconds": attempt.seconds,
            "cpu_s": attempt.cpu_s,
        }
        # Only the holder of the newest fence writes: one that slept past its lease does not.
        if fence is not None and self.cache.claim(key, self.owner, LEASE_S) == fence:
            self.cache.put(key, call.step.name, entry)
        outputs = self._take(call, entry, done)
        self._tell(call, "executed", attempt.seconds)
        return self._fact(call, key, parts, StepStatus.EXECUTED, why, outputs=outputs, **facts)

    def _again(self, call: Call, ready: _Ready, done: Executed, plan: Plan, lost: _Lost) -> StepRun:
        """An input vanished after it was found: make it again, then this step."""
        if lost.call in self.remade:
            raise FalajError(
                "pipelines.artifact-lost",
                f"{call.id}: what {lost.call} made was stored and cannot be read back",
                place=call.place,
                why="it was made again, and lost again",
                fix="look at the disk that holds the workspace's blobs",
            )
        self.remade.add(lost.call)
        maker = next(other for other in plan.calls if other.id == lost.call)
        made = next(step for step in done.steps if step.step == maker.id)
        self.cache.forget(made.key)
        first = self._prepare(plan)[maker.id]
        done.steps[done.steps.index(made)] = self._one(maker, first, done, plan)
        return self._one(call, ready, done, plan)

    def _extras(self, closure: Closure) -> dict[str, str]:
        """Project files loaded by computed names, which no reading of the code can list."""
        if not closure.dynamic:
            return {}
        named = {file: self._scanner.named(file) for file in project_modules(self.roots).values()}
        return {
            name: self._scanner.digest(file)
            for file, name in named.items()
            if name not in closure.files and file.endswith(".py")
        }

    def _why(
        self, call: Call, parts: dict[str, Any], closure: Closure, old: dict[str, Any] | None
    ) -> str:
        if not call.step.options.cache:
            return "cache=False"
        new = {"parts": parts, "definitions": closure.definitions, "parents": closure.parents}
        return rules.why_reruns(old, new)

    @contextmanager
    def _beating(self, key: str) -> Iterator[None]:
        """Renew the claim while the step runs."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_S):
                self.cache.claim(key, self.owner, LEASE_S)

        thread = threading.Thread(target=beat, name=f"falaj-beat-{key[7:15]}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _fact(
        self, call: Call, key: str, parts: dict[str, Any], status: StepStatus, why: str, **more: Any
    ) -> StepRun:
        return StepRun(step=call.id, key=key, parts=parts, status=status, why=why, **more)

    def _tell(self, call: Call, status: str, seconds: float) -> None:
        if self.on_step is not None:
            self.on_step(call.id, status, seconds)


class _Attempt:
    """Attempts of one step until an answer is stored or the rules say stop."""

    def __init__(self, executor: Executor, call: Call, done: Executed) -> None:
        self.executor = executor
        self.call = call
        self.done = done
        self.log = Log()
        self.started = now()
        self.seconds = 0.0
        self.cpu_s = 0.0
        self.number = 0
        self.ending = rules.Ending.RAISED
        self.error: BaseException | None = None
        self.running = Running(call.step.name, keys.seed_of(executor.seed, call.step.name))

    def run(self) -> tuple[Artifact, ...] | None:
        """The stored outputs, None when the step failed. Raises _Lost."""
        options = self.call.step.options
        begun, cpu = time.perf_counter(), time.process_time()
        while True:
            self.number += 1
            self.running.metrics.clear()
            self.running.points.clear()
            outputs = self._once()
            self.seconds, self.cpu_s = time.perf_counter() - begun, time.process_time() - cpu
            if outputs is not None:
                return outputs
            listed = isinstance(self.error, options.retry_on) or (
                self.ending is rules.Ending.TIMEOUT and TimeoutError in options.retry_on
            )
            again = rules.may_retry(
                self.ending, attempt=self.number, retries=options.retries, listed=listed
            )
            if not again:
                return None
            jitter = int.from_bytes(os.urandom(2), "big") / 65536
            time.sleep(rules.delay_s(self.number - 1, jitter=jitter))

    def _once(self) -> tuple[Artifact, ...] | None:
        arguments = {name: self._read(argument) for name, argument in self.call.arguments.items()}
        span = self.call.step.options.timeout
        token = RUNNING.set(self.running)
        begun = time.perf_counter()
        try:
            with captured(self.log), seeded(self.running.seed), limited(span):
                answer = self.call.step.function(**arguments)
            if span is not None and time.perf_counter() - begun > span.total_seconds():
                raise StepTimeout
        except StepTimeout as error:
            self._ended(rules.Ending.TIMEOUT, error)
            return None
        except (Exception, SystemExit) as error:
            self._ended(rules.Ending.RAISED, error)
            return None
        finally:
            RUNNING.reset(token)
        try:
            return self._store(answer)
        except BadValue as error:
            self._ended(rules.Ending.BAD_ANSWER, error)
            return None

    def _ended(self, ending: rules.Ending, error: BaseException) -> None:
        self.ending, self.error = ending, error
        self.log.write("".join(traceback.format_exception(error)))

    def _read(self, argument: Argument) -> Any:
        match argument:
            case Given(value=value):
                return copy.deepcopy(value)
            case Bound(dataset=name):
                return self.executor.datasets[name]
            case Ref():
                return self._read_ref(argument)
            case Refs(items=items, wrap=wrap):
                return wrap(self._read_ref(item) for item in items)

    def _read_ref(self, ref: Ref) -> Any:
        """Always from the artifact: a step that changes its input changes its own copy only."""
        parts = self.done.artifacts[ref.call]
        kinds = outputs_of(ref.kind) if ref.part is None else {ref.part: ref.kind}
        try:
            values = [self._decode(parts[name], kind) for name, kind in kinds.items()]
        except BlobMissing:
            raise _Lost(ref.call) from None
        if ref.part is None and list(kinds) != ["result"]:
            return ref.kind(*values) if hasattr(ref.kind, "_fields") else tuple(values)
        return values[0]

    def _decode(self, artifact: Artifact, kind: Any) -> Any:
        codec = choose(self.executor.codecs, kind)
        assert codec is not None  # noqa: S101 the plan checked it
        return codec.read(artifact, kind, self.executor.blobs)

    def _store(self, answer: Any) -> tuple[Artifact, ...]:
        kinds = outputs_of(self.call.returns)
        if list(kinds) == ["result"]:
            values = [answer]
        elif isinstance(answer, tuple) and len(answer) == len(kinds):
            values = list(answer)
        else:
            raise BadValue(f"got {type(answer).__name__}, expected {show(self.call.returns)}")
        stored = []
        for (name, kind), value in zip(kinds.items(), values, strict=True):
            codec = choose(self.executor.codecs, kind)
            assert codec is not None  # noqa: S101 the plan checked it
            try:
                stored.append(codec.write(value, kind, name, self.executor.blobs))
            except BadValue as error:
                field_name = "" if name == "result" else f"{name}: "
                raise BadValue(f"{field_name}{error}") from None
        return tuple(stored)

    # -- telling ---------------------------------------------------------------------------------

    def failure(self, done: Executed) -> FalajError:
        """At most 16 lines when printed: the user's line first, the message once, never ours."""
        name, error = self.call.id, self.error
        assert error is not None  # noqa: S101 called after a failure only
        places = user_places(error, self.executor.root)
        code, message = "pipelines.step-failed", f"{name}: {type(error).__name__}: {_brief(error)}"
        if self.ending is rules.Ending.TIMEOUT:
            code = "pipelines.step-timeout"
            message = f"{name}: not finished after {self.call.step.options.timeout}"
        elif self.ending is rules.Ending.BAD_ANSWER:
            code = "pipelines.answer-type"
            message = f"{name}: its answer cannot be stored: {_brief(error)}"
        elif isinstance(error, SystemExit):
            message = f"{name}: called exit with {error.code!r}"
        own = inspect.unwrap(self.call.step.function).__code__
        home = place_at(own.co_filename, own.co_firstlineno, self.executor.root, own.co_name)
        lines = [
            f"{place.file}:{place.line} {place.note}  {place.excerpt[0][1] if place.excerpt else ''}"
            for place in places[1:][-4:]
        ]
        lines.append(f"inputs: {self._inputs_text(done)}")
        kept = ", ".join(step.step for step in done.steps if step.status is not StepStatus.FAILED)
        after = f"after {self.seconds:.1f} s, attempt {self.number}"
        lines.append(f"{after}; {kept} kept" if kept else after)
        return FalajError(
            code,
            message,
            place=places[0] if places else home,
            why="\n".join(lines),
            fix=f"mend the line, then run again: {name} runs anew, finished steps are kept",
        )

    def _inputs_text(self, done: Executed) -> str:
        words = []
        for name, argument in self.call.arguments.items():
            match argument:
                case Given(value=value):
                    text = repr(value)
                    words.append(f"{name} = {text if len(text) <= 60 else text[:57] + '...'}")
                case Bound(dataset=dataset):
                    words.append(f"{name} = dataset {dataset}")
                case Ref(call=made, part=part):
                    parts = done.artifacts[made]
                    artifact = parts[part] if part else next(iter(parts.values()))
                    rows = "" if artifact.rows is None else f", {artifact.rows} rows"
                    words.append(f"{name} = {made} ({artifact.digest[:15]}..{rows})")
                case Refs(items=items):
                    words.append(f"{name} = {len(items)} answers")
        return "; ".join(words) or "none"


def _brief(error: BaseException) -> str:
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()][:3]
    return "\n".join(line if len(line) <= 300 else line[:297] + "..." for line in lines)


def _joined(first: FalajError, second: FalajError) -> FalajError:
    return FalajError.of((*first.problems, *second.problems))
