"""The other side of a worker process: read orders, run them, answer. Nothing travels on stdout."""

from __future__ import annotations

import base64
import ctypes
import io
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO, cast

import msgspec

from falaj.base.errors import FalajError
from falaj.base.points import Series, pack
from falaj.facts.runs import Ending
from falaj.pipelines.attempt import Around, Bench
from falaj.pipelines.capture import Log
from falaj.pipelines.closure import Scanner
from falaj.pipelines.codecs import choose
from falaj.pipelines.loading import load_pipeline, project
from falaj.pipelines.plan import Plan, make_plan
from falaj.pipelines.service import all_codecs
from falaj.ports.blobs import Blobs
from falaj.ports.cache import Memo
from falaj.ports.codecs import Codec
from falaj.ports.datasets import Dataset
from falaj.ports.evidence import EvidenceReader
from falaj.ports.executor import MOVED, Hear, Order, Outcome

__all__ = ["Supplies", "serve"]

OUT: Final = 1
ERR: Final = 2


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What the wiring of the process gives.

    datasets: opened when a step first asks for one. around: entered for each call of a step.
    """

    blobs: Blobs
    memo: Memo
    codecs: Sequence[Codec]
    datasets: Callable[[], Mapping[str, Dataset]]
    declared: tuple[str, ...]
    around: Around | None = None
    evidence: tuple[EvidenceReader, ...] = ()


def serve(orders: int, answers: int, supplies: Callable[[Path], Supplies]) -> None:
    """Work off orders until their pipe is closed.

    orders, answers: descriptors of pipes. Each order is one line; behind its JSON stands a word
    that is printed when the step is done, so that the reader knows what belongs to it.
    """
    os.set_inheritable(orders, False)
    os.set_inheritable(answers, False)
    sys.stdout, sys.stderr = _at_once(OUT), _at_once(ERR)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, lines), daemon=True).start()
    with ExitStack() as stack:
        side = _Side(supplies, stack)
        while True:
            line = lines.get()
            text, _, word = line.rstrip("\n").rpartition(" ")
            outcome = side.run(msgspec.convert(json.loads(text), Order), partial(_tell, answers))
            _flush()
            os.write(OUT, word.encode())
            said = json.dumps(msgspec.to_builtins(outcome)) + "\n"
            _write(answers, said.encode())


def _at_once(descriptor: int) -> TextIO:
    """Nothing is held back, so that lines of both stand in the order in which they were said."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    errors = "backslashreplace" if descriptor == ERR else "strict"
    buffer = cast("BinaryIO", raw)
    return io.TextIOWrapper(buffer, "utf-8", errors=errors, write_through=True)


def _listen(orders: int, lines: queue.SimpleQueue[str]) -> None:
    """Hand orders on. When the one who gives them is gone, nobody waits for this process."""
    with os.fdopen(orders, "r", encoding="utf-8") as given:
        for line in given:
            lines.put(line)
    os.killpg(0, signal.SIGKILL)  # and for what its steps have left behind


def _flush() -> None:
    """What Python and C still hold back belongs to this step."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


def _tell(answers: int, metrics: Mapping[str, float], lines: Sequence[Series]) -> None:
    """A line before the answer; whoever writes the answer waits until it is written."""
    said = {"metrics": dict(metrics), "points": base64.b64encode(pack(lines)).decode()}
    _write(answers, json.dumps({"said": said}).encode() + b"\n")


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


@contextmanager
def _open(_log: Log) -> Iterator[None]:
    """The other side reads the descriptors themselves, so that C code is heard as well."""
    yield


class _Side:
    """The project as this process has loaded it, once."""

    def __init__(self, supplies: Callable[[Path], Supplies], stack: ExitStack) -> None:
        self._supplies = supplies
        self._stack = stack
        self._benches: dict[str, Bench] = {}
        self._checked: dict[tuple[str, str], str] = {}
        self._loaded = False

    def run(self, order: Order, hear: Hear) -> Outcome:
        try:
            bench = self._bench(order)
            changed = self._changed(bench, order)
        except FalajError as error:
            changed = f"{error.code}: {error}"
        if changed:
            return Outcome(ending=Ending.RAISED, error=MOVED, message=changed)
        outcome = bench.attempt(order, capture=_open, span=None, hear=hear)
        if outcome.log:  # a traceback: the log is what was printed
            sys.stderr.write(outcome.log)
        return msgspec.structs.replace(outcome, log="")

    def _bench(self, order: Order) -> Bench:
        key = json.dumps([order.root, order.pipeline, order.parameters], sort_keys=True)
        if key not in self._benches:
            root, roots = Path(order.root), [Path(path) for path in order.roots]
            if not self._loaded:
                self._stack.enter_context(project(roots))
                self._loaded = True
            given = self._supplies(root)
            codecs = all_codecs(given.codecs)
            plan = self._plan(order, root, given, codecs)
            self._benches[key] = Bench(
                plan,
                root=root,
                roots=roots,
                scanner=Scanner(roots, base=root, memo=given.memo),
                blobs=given.blobs,
                codecs=codecs,
                datasets=_Later(given.datasets),
                around=given.around,
                evidence=given.evidence,
                declared=given.declared,
            )
        return self._benches[key]

    @staticmethod
    def _plan(order: Order, root: Path, given: Supplies, codecs: Sequence[Codec]) -> Plan:
        return make_plan(
            load_pipeline(order.pipeline, root),
            order.parameters,
            root=root,
            datasets=given.declared,
            storable=lambda kind: choose(codecs, kind) is not None,
        )

    def _changed(self, bench: Bench, order: Order) -> str:
        """What is no longer as it was when the key was made; empty when all is."""
        call = bench.calls.get(order.call)
        if call is None:
            return f"there is no step {order.call} any more"
        checked = (order.call, json.dumps(order.code, sort_keys=True))
        if checked not in self._checked:
            code = _code_of(call)
            closure = bench.scanner.closure(code.co_filename, code.co_name, also=call.step.file)
            files = {**closure.files, **order.code}
            differs = [f for f in files if closure.files.get(f) != order.code.get(f)]
            self._checked[checked] = f"{differs[0]} was edited" if differs else ""
        for name, content in order.datasets.items():
            if bench.datasets[name].version.content != content:
                return f"dataset {name} was written"
        return self._checked[checked]


def _code_of(call: Any) -> Any:
    import inspect

    return inspect.unwrap(call.step.function).__code__


class _Later(Mapping[str, Dataset]):
    """Datasets that are opened when one is asked for."""

    def __init__(self, made: Callable[[], Mapping[str, Dataset]]) -> None:
        self._made = made
        self._found: Mapping[str, Dataset] | None = None

    def _all(self) -> Mapping[str, Dataset]:
        if self._found is None:
            self._found = self._made()
        return self._found

    def __getitem__(self, name: str) -> Dataset:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
