"""One attempt of one step, in this process: read the inputs, call, store, say how it ended."""

from __future__ import annotations

import copy
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from falaj.base.errors import FalajError
from falaj.base.points import pack
from falaj.facts.runs import Artifact, Ending
from falaj.facts.wire import encode
from falaj.pipelines import keys
from falaj.pipelines.capture import Log, Peak, StepTimeout, captured, limited
from falaj.pipelines.closure import Scanner, is_inside
from falaj.pipelines.codecs import choose
from falaj.pipelines.context import RUNNING, Running
from falaj.pipelines.loading import project_modules
from falaj.pipelines.plan import Argument, Bound, Call, Given, Plan, Ref, Refs, outputs_of, show
from falaj.pipelines.seeds import seeded
from falaj.pipelines.telling import telling
from falaj.ports.blobs import BlobMissing, Blobs
from falaj.ports.codecs import BadValue, Codec
from falaj.ports.datasets import Dataset
from falaj.ports.evidence import EvidenceReader
from falaj.ports.executor import Hear, Line, Order, Outcome

__all__ = ["Around", "Bench", "Here"]

# Entered around the call of a step, with its record: for libraries that say things on their own.
Around = Callable[[Running, Order], AbstractContextManager[None]]


class _Lost(Exception):
    """The bytes of an input are gone or altered."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


class Bench:
    """A plan, and all that its steps need to run."""

    def __init__(
        self,
        plan: Plan,
        *,
        root: Path,
        roots: Sequence[Path],
        scanner: Scanner,
        blobs: Blobs,
        codecs: Sequence[Codec],
        datasets: Mapping[str, Dataset],
        around: Around | None = None,
        evidence: tuple[EvidenceReader, ...] = (),
        declared: tuple[str, ...] = (),
    ) -> None:
        self.plan = plan
        self.evidence, self.declared = evidence, declared
        self.calls = {call.id: call for call in plan.calls}
        self.root, self.roots, self.scanner = root, roots, scanner
        self.blobs, self.codecs, self.datasets = blobs, codecs, datasets
        self.around = around
        self.start = [os.path.realpath(root) + os.sep]

    def attempt(
        self,
        order: Order,
        *,
        capture: Callable[[Log], AbstractContextManager[None]],
        span: timedelta | None,
        hear: Hear | None = None,
    ) -> Outcome:
        """span: interrupts the step from inside; None where somebody outside does.

        hear: what the step logs, while it runs.
        """
        call, log = self.calls[order.call], Log()
        seed = keys.seed_of(order.seed, call.step.name)
        running = Running(order.id, seed, readers=self.evidence, datasets=self.declared)
        begun, cpu = time.perf_counter(), time.process_time()
        memory = Peak()
        outputs: tuple[Artifact, ...] = ()
        ending = Ending.DONE
        error: BaseException | None = None
        try:
            answer = self._called(call, order, running, log, capture, span, hear)
            outputs = self._stored(call, answer)
        except _Lost as lost:
            return Outcome(ending=Ending.LOST, lost_input=lost.id)
        except StepTimeout as late:
            ending, error = Ending.TIMEOUT, late
        except BadValue as bad:
            ending, error = Ending.BAD_ANSWER, bad
        except (Exception, SystemExit) as raised:
            ending, error = Ending.RAISED, raised
        if error is not None:
            log.write("".join(traceback.format_exception(error)))
        return Outcome(
            ending=ending,
            outputs=outputs,
            metrics=running.metrics,
            points=self.blobs.put(pack(list(running.lines.values()))) if running.lines else "",
            plots={n: self.blobs.put(encode(p)) for n, p in running.plots.items()},
            files={n: self.blobs.put(data) for n, data in running.files.items()},
            params=running.params,
            tags=running.tags,
            checks=tuple(running.checks),
            peak_mb=memory.peak_mb(),
            extras=self._extras(order) if not error else {},
            error="" if error is None else type(error).__name__,
            message="" if error is None else self._message(error),
            listed=self._listed(call, ending, error),
            lines=() if error is None else self._lines(error),
            log=log.text(),
            seconds=time.perf_counter() - begun,
            cpu_s=time.process_time() - cpu,
        )

    def _called(
        self,
        call: Call,
        order: Order,
        running: Running,
        log: Log,
        capture: Callable[[Log], AbstractContextManager[None]],
        span: timedelta | None,
        hear: Hear | None,
    ) -> Any:
        arguments = {
            name: self._bound(call, name, order)
            if name in order.bound
            else self._read(argument, order)
            for name, argument in call.arguments.items()
        }
        token = RUNNING.set(running)
        begun = time.perf_counter()
        try:
            beside = self.around(running, order) if self.around else nullcontext()
            told = telling(running, hear)
            with capture(log), beside, told, seeded(running.seed), limited(span):
                answer = call.step.function(**arguments)
            if span is not None and time.perf_counter() - begun > span.total_seconds():
                raise StepTimeout
        except BadValue as own:  # the step's own, not what storing says
            raise RuntimeError(str(own)) from own
        finally:
            RUNNING.reset(token)
        return answer

    def _bound(self, call: Call, name: str, order: Order) -> Any:
        """An argument that became known in the run: an element, or what stands for nothing."""
        given, argument = order.bound[name], call.arguments[name]
        if "ref" in given:
            return self._artifact(given["ref"], None, call_returns(self.calls, argument), order)
        if "absent" in given:
            return copy.deepcopy(argument.absent) if isinstance(argument, Ref) else None
        kind = argument.kind if isinstance(argument, Ref) else Any
        (element,) = getattr(kind, "__args__", (Any,))[:1]
        return msgspec.convert(copy.deepcopy(given["value"]), type=element)

    def _read(self, argument: Argument, order: Order) -> Any:
        match argument:
            case Given(value=value):
                return copy.deepcopy(value)
            case Bound(dataset=name):
                return self.datasets[name]
            case Ref():
                return self._ref(argument, order)
            case Refs(items=items, wrap=wrap):
                return wrap(self._ref(item, order) for item in items)

    def _ref(self, ref: Ref, order: Order) -> Any:
        """Always from the artifact: a step that changes its input changes its own copy only."""
        if ref.call in order.lists:
            kind = call_returns(self.calls, ref)
            return [self._artifact(one, None, kind, order) for one in order.lists[ref.call]]
        if ref.call not in order.made:
            return copy.deepcopy(ref.absent)
        return self._artifact(ref.call, ref.part, ref.kind, order)

    def _artifact(self, id: str, part: str | None, kind: Any, order: Order) -> Any:
        parts = order.made[id]
        kinds = outputs_of(kind) if part is None else {part: kind}
        try:
            values = [self._decode(parts[name], inner) for name, inner in kinds.items()]
        except BlobMissing:
            raise _Lost(id) from None
        if part is None and list(kinds) != ["result"]:
            return kind(*values) if hasattr(kind, "_fields") else tuple(values)
        return values[0]

    def _decode(self, artifact: Artifact, kind: Any) -> Any:
        codec = choose(self.codecs, kind)
        assert codec is not None  # noqa: S101 the plan checked it
        return codec.read(artifact, kind, self.blobs)

    def _stored(self, call: Call, answer: Any) -> tuple[Artifact, ...]:
        kinds = outputs_of(call.returns)
        if list(kinds) == ["result"]:
            values = [answer]
        elif isinstance(answer, tuple) and len(answer) == len(kinds):
            values = list(answer)
        else:
            raise BadValue(f"got {type(answer).__name__}, expected {show(call.returns)}")
        stored = []
        for (name, kind), value in zip(kinds.items(), values, strict=True):
            codec = choose(self.codecs, kind)
            assert codec is not None  # noqa: S101 the plan checked it
            try:
                stored.append(codec.write(value, kind, name, self.blobs))
            except BadValue as error:
                field_name = "" if name == "result" else f"{name}: "
                raise BadValue(f"{field_name}{error}") from None
        return tuple(stored)

    def _extras(self, order: Order) -> dict[str, str]:
        """Project files loaded by computed names, which no reading of the code can list."""
        if not order.dynamic:
            return {}
        named = {f: self.scanner.named(f) for f in project_modules(self.roots).values()}
        return {
            name: self.scanner.digest(file)
            for file, name in named.items()
            if name not in order.code and file.endswith(".py")
        }

    def _listed(self, call: Call, ending: Ending, error: BaseException | None) -> bool:
        listed = call.step.options.retry_on
        return isinstance(error, listed) or (ending is Ending.TIMEOUT and TimeoutError in listed)

    def _lines(self, error: BaseException) -> tuple[Line, ...]:
        found, trace = [], error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if is_inside(os.path.realpath(code.co_filename), self.start):
                found.append(
                    Line(file=code.co_filename, line=trace.tb_lineno, function=code.co_name)
                )
            trace = trace.tb_next
        return tuple(found[:1] + found[1:][-4:])

    @staticmethod
    def _message(error: BaseException) -> str:
        if isinstance(error, SystemExit):
            return repr(error.code)
        text = str(error)
        if isinstance(error, FalajError):  # of ours: it knows the way out
            first = error.problems[0]
            fix = f"fix: {first.fix}" if first.fix else ""
            text = "\n".join((f"[{first.code}] {first.message}", first.why, fix))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()][:3]
        return "\n".join(line if len(line) <= 300 else line[:297] + "..." for line in lines)


def call_returns(calls: Mapping[str, Call], argument: Argument) -> Any:
    """What one element of the mapped call behind the argument is."""
    assert isinstance(argument, Ref)  # noqa: S101 only answers have elements
    return calls[argument.call].returns


# sys.stdout, the seeds and the alarm belong to the whole process.
ONE_AT_A_TIME = threading.Lock()


class Here:
    """The port Executor in this process: one at a time; a step can take the process with it.

    What Python prints is captured, what C code prints is not: the descriptors belong to the whole
    process, and with it to a server's log or a person's progress bar.
    """

    at_once = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def run(self, order: Order) -> Outcome:
        return self._run(order, None)

    def run_telling(self, order: Order, hear: Hear) -> Outcome:
        return self._run(order, hear)

    def _run(self, order: Order, hear: Hear | None) -> Outcome:
        span = None if order.timeout_s is None else timedelta(seconds=order.timeout_s)
        with ONE_AT_A_TIME:
            return self._bench.attempt(order, capture=captured, span=span, hear=hear)

    def close(self) -> None:
        """Nothing runs on."""
