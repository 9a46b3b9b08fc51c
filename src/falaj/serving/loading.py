"""From verified bytes to a warm model that has shown the answers expected of it."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import Unverified
from falaj.facts.models import Datatype, Schema, Tensor
from falaj.facts.releases import Manifest
from falaj.serving.schema import DTYPES, Reader, Rows, concatenate

__all__ = ["EngineFailed", "Loaded", "Outputs", "Runtime", "load"]

FLOATS: Final = (Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64)
WARM: Final = (1, 8, 64)
PROBES: Final = "reference/probes.json"


class Runtime(Protocol):
    """An engine with one model. `run` is thread-safe and does no I/O."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema."""


class EngineFailed(Exception):
    """The model gave no answer, or one that its schema forbids."""


class Outputs:
    """Outputs of a batch, one an output tensor, in schema order.

    flats: as flat Python lists, made when first asked for. tails: shape behind the row axis as JSON
    writes it, such as `,2`; empty for vectors. arrays: as the engine gave them, `n` rows from
    `first` on are meant.
    """

    __slots__ = ("arrays", "first", "lists", "n", "tails", "widths")

    def __init__(
        self,
        n: int,
        flats: list[list[Any]] | None,
        widths: list[int],
        tails: list[bytes],
        arrays: list[NDArray[Any]] | None = None,
        first: int = 0,
    ) -> None:
        self.n = n
        self.lists = flats
        self.widths = widths
        self.tails = tails
        self.arrays = arrays
        self.first = first

    @property
    def flats(self) -> list[list[Any]]:
        if self.lists is None:
            self.lists = [self.array(at).ravel().tolist() for at in range(len(self.widths))]
        return self.lists

    def array(self, at: int) -> NDArray[Any]:
        """One output tensor as an array."""
        if self.arrays is None:
            raise TypeError("these outputs were given as lists")
        return self.arrays[at][self.first : self.first + self.n]

    def row(self, index: int) -> list[Any]:
        """All outputs of one row in schema order."""
        if self.lists is None:
            at = self.first + index
            return [cell for array in self.arrays or () for cell in array[at].ravel().tolist()]
        return [
            value
            for flat, width in zip(self.lists, self.widths, strict=True)
            for value in flat[index * width : (index + 1) * width]
        ]

    def part(self, first: int, n: int) -> Outputs:
        """Outputs of `n` rows from `first` on."""
        if first == 0 and n == self.n:
            return self
        pairs = zip(self.flats, self.widths, strict=True)
        flats = [flat[first * width : (first + n) * width] for flat, width in pairs]
        return Outputs(n, flats, self.widths, self.tails, self.arrays, self.first + first)


class Loaded:
    """A release in memory: verified, warm, probed. `slot`: in the ids of requests."""

    away = False  # it runs here

    def __init__(self, release: str, manifest: Manifest, runtime: Runtime, slot: int) -> None:
        self.release = release
        self.manifest = manifest
        self.runtime = runtime
        self.slot = slot
        self.reader = Reader(manifest.schema)
        self.outputs = manifest.schema.outputs
        self.strict = [
            at
            for at, tensor in enumerate(self.outputs)
            if tensor.datatype in FLOATS
            and not (tensor.columns and all(column.nullable for column in tensor.columns))
        ]
        self.score_at = _score(self.outputs)
        self.heads = [
            b'{"name":%b,"datatype":"%b","shape":['
            % (msgspec.json.encode(tensor.name), tensor.datatype.value.encode())
            for tensor in self.outputs
        ]
        self.title = b'{"model_name":%b,"model_version":%b,' % (
            msgspec.json.encode(manifest.model),
            msgspec.json.encode(manifest.version),
        )
        self.threshold = 0.5 if manifest.threshold is None else float(manifest.threshold)
        self.cost_us = (0.0, 0.0)  # a call costs first + second x rows

    def run(self, parts: list[Rows]) -> Outputs:
        """Answer several requests in one call. Raises EngineFailed."""
        n = sum(part.n for part in parts)
        return self.outputs_of(self._found(concatenate(self.reader, parts)), n)

    def ask(self, jobs: Any) -> None:
        """Only a model that is away is asked."""
        raise EngineFailed(f"{self.release} runs here: nobody has to ask for {len(jobs)} requests")

    def compute(self, feeds: Mapping[str, NDArray[Any]], n: int) -> list[NDArray[Any]]:
        """Answer `n` rows that were checked elsewhere, as arrays. Raises EngineFailed."""
        outputs = self.outputs_of(self._found(feeds), n)
        return [outputs.array(at) for at in range(len(self.outputs))]

    def _found(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        try:
            return self.runtime.run(feeds)
        except Exception as error:  # guarded edge: engines raise classes of their own
            words = str(error).splitlines() or [type(error).__name__]
            raise EngineFailed(words[0][:300]) from None

    def outputs_of(self, found: list[Any], n: int) -> Outputs:
        """Check what an engine gave for `n` rows. Raises EngineFailed."""
        arrays: list[NDArray[Any]] = []
        widths: list[int] = []
        tails: list[bytes] = []
        for array, tensor in zip(found, self.outputs, strict=True):
            whole = np.asarray(array)
            if whole.shape[:1] != (n,):
                raise EngineFailed(f"{tensor.name}: got {whole.shape} for {n} rows")
            arrays.append(whole)
            widths.append(whole.size // n)
            tails.append(b"".join(b",%d" % size for size in whole.shape[1:]))
        for at in self.strict:
            if not np.isfinite(arrays[at]).all():
                raise EngineFailed(f"{self.outputs[at].name}: got NaN or infinity")
        return Outputs(n, None, widths, tails, arrays)

    def score(self, outputs: Outputs, row: int) -> float | None:
        """Return the one number that decides: probability of the last class, or the value."""
        if self.score_at < 0:
            return None
        if outputs.lists is None and outputs.arrays is not None:
            return float(outputs.arrays[self.score_at][outputs.first + row].ravel()[-1])
        width = outputs.widths[self.score_at]
        value: float = outputs.flats[self.score_at][row * width + width - 1]
        return value

    def cost(self, rows: int) -> float:
        """Microseconds a call with so many rows is expected to take."""
        first, each = self.cost_us
        return first + each * rows


def load(
    folder: Path,
    manifest: Manifest,
    release: str,
    slot: int,
    make: Callable[[Path, Schema], Any] | None = None,
) -> Loaded:
    """Load a verified folder, warm it, compare probe rows. Raises Unverified.

    `make(folder, schema)` builds the runtime; without it the manifest's runtime decides.
    """
    if make is None:
        from falaj.serving.runtimes.choice import maker

        make = maker(manifest.runtime)
    loaded = Loaded(release, manifest, make(folder / "model", manifest.schema), slot)
    try:
        _warm(loaded)
        _probe(loaded, folder / PROBES)
    except EngineFailed as error:
        raise Unverified(
            "serving.model-fails",
            f"model/: {error}",
            why="it failed on its own warm-up or probe rows",
            fix="build the release again",
        ) from None
    return loaded


def _score(outputs: tuple[Tensor, ...]) -> int:
    floats = [at for at, tensor in enumerate(outputs) if tensor.datatype in FLOATS]
    named = [at for at in floats if outputs[at].name in ("probabilities", "probability", "score")]
    return (named or floats or [-1])[0]


def _warm(loaded: Loaded) -> None:
    timed: list[tuple[int, float]] = []
    for n in WARM:
        rows = _zeros(loaded, n)
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter_ns()
            _call(loaded, rows)
            best = min(best, (time.perf_counter_ns() - begun) / 1000)
        timed.append((n, best))
    (few, low), (many, high) = timed[0], timed[-1]
    each = max(0.0, (high - low) / (many - few))
    loaded.cost_us = (max(0.0, low - each * few), each)


def _call(loaded: Loaded, rows: Rows) -> None:
    # Zeros may lie outside what the model was made for: a NaN here is no finding, a crash is.
    try:
        loaded.runtime.run(concatenate(loaded.reader, [rows]))
    except Exception as error:  # guarded edge: engines raise classes of their own
        words = str(error).splitlines() or [type(error).__name__]
        raise EngineFailed(words[0][:300]) from None


def _zeros(loaded: Loaded, n: int) -> Rows:
    matrix = loaded.reader.matrix
    if matrix is not None:
        return Rows(n, matrix.shape[1], (), bytes(4 * n * matrix.shape[1]))
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in loaded.manifest.schema.inputs:
        shape = (n, *(max(size, 1) for size in tensor.shape[1:]))
        fill = "" if tensor.datatype is Datatype.BYTES else 0
        arrays[tensor.name] = np.full(shape, fill, DTYPES[tensor.datatype])
    return Rows(n, loaded.reader.width, (), None, arrays)


def _probe(loaded: Loaded, path: Path) -> None:
    """Compare answers to the probe rows that lie in the release, if there are any."""
    if not path.is_file():
        return
    try:
        probes = msgspec.json.decode(path.read_bytes())
        rows, expected = probes["inputs"], probes["outputs"]
        tolerance = float(probes.get("tolerance", 1e-5))
        asked = [_row(loaded, row) for row in rows]
        wanted = [[float(x) for x in (y if isinstance(y, list) else [y])] for y in expected]
        if len(asked) != len(wanted):
            raise ValueError("as many outputs as inputs are due")
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"{PROBES}: cannot be read: {error}"
        raise Unverified("serving.probes", words, fix="build the release again") from None
    for at, (row, want) in enumerate(zip(asked, wanted, strict=True)):
        outputs = loaded.run([row])
        got = outputs.flats[loaded.score_at] if loaded.score_at >= 0 else []
        if len(want) == 1:
            score = loaded.score(outputs, 0)
            got = [] if score is None else [score]
        elif len(want) == sum(outputs.widths) != len(got):
            got = [float(value) for value in outputs.row(0)]
        same = len(got) == len(want) and all(
            abs(g - w) <= tolerance for g, w in zip(got, want, strict=True)
        )
        if not same:
            raise Unverified(
                "serving.probes",
                f"{PROBES}: row {at}: got {got}, expected {want} within {tolerance}",
                why="this machine computes something else than the one that made the release",
                fix="compare the versions of ONNX Runtime, then build the release again",
            )


def _row(loaded: Loaded, row: list[Any]) -> Rows:
    numbers = [None if x is None else float(x) if isinstance(x, str) else x for x in row]
    matrix = loaded.reader.matrix
    if matrix is None:
        named = dict(zip(_names(loaded.manifest.schema.inputs), row, strict=True))
        return loaded.reader.rows([named])
    if len(numbers) != matrix.shape[1]:
        raise ValueError(f"got {len(numbers)} values in a row, expected {matrix.shape[1]}")
    holes = [math.nan if x is None else float(x) for x in numbers]
    return Rows(1, len(holes), numbers, struct.pack(f"<{len(holes)}f", *holes))


def _names(inputs: tuple[Tensor, ...]) -> list[str]:
    return [
        name
        for tensor in inputs
        for name in ([column.name for column in tensor.columns] or [tensor.name])
    ]
