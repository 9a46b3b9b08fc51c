"""Mergeable summaries: what a data plane counts, and what may leave a region.

Laws, for summaries of equal identity (kind and the fields marked *identity*):
1. `merge` adds counts; it is commutative and associative, and `empty` is neutral.
2. All counts are integers, so any order and any split over sources gives the same bits.
3. Different identity -> Unmergeable. Adding is not idempotent: duplicates are `Tally`'s business.

Wire: canonical JSON of falaj.base. `decode` reads only the one spelling that `encode` writes, and
raises nothing but BadSummary. Rules of evolution: `v` changes with the meaning; a key is never
reused; unknown keys are refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from falaj.base import canonical, digests
from falaj.base.errors import Conflict, FalajError

__all__ = [
    "Axes",
    "BadSummary",
    "Cats",
    "Counts2x2",
    "Cube",
    "Edges",
    "Hist",
    "Moments",
    "Pairs",
    "Report",
    "Stratum",
    "Summary",
    "Tally",
    "Unmergeable",
    "Vocabulary",
    "bin_counts",
    "coarsen",
    "coarsen_words",
    "count_words",
    "decode",
    "digest",
    "empty",
    "encode",
    "identity",
    "merge",
    "of_plain",
    "to_plain",
]

LARGEST: Final = 2**53 - 1
LONGEST_TEXT: Final = 256
MOST_CELLS: Final = 4096
MOST_CUBE_CELLS: Final = 65_536
DECIMAL: Final = re.compile(r"0|-?[1-9][0-9]{0,59}")
MIN_CELL: Final = 10
FEW_ROWS: Final = 256  # up to here searchsorted beats np.histogram


class BadSummary(FalajError):
    """A summary or artifact breaks its contract; nothing was merged."""

    status = 422

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(
            "stats.bad-summary",
            f"bad summary, field {field!r}: {reason}",
            fix="send counts as `falaj.stats.summaries.encode` writes them",
        )
        self.field = field
        self.reason = reason


class Unmergeable(Conflict):
    """Two summaries do not speak of the same thing."""

    def __init__(self, message: str) -> None:
        super().__init__(
            "stats.unmergeable",
            message,
            fix="merge only summaries of one metric, stratum and edges digest",
        )


class Stratum(NamedTuple):
    """Where a 2x2 table was counted: `t` minutes since 1970, zone, weight step of the rollout."""

    t: int
    zone: str
    step: int

    @property
    def order(self) -> tuple[int, int, str]:
        """Strata are fed to a state in this order."""
        return (self.t, self.step, self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts2x2:
    """Requests n and bad ones x, of canary (c) and stable (s). Identity: metric, stratum."""

    kind: ClassVar[str] = "counts2x2"
    metric: str
    stratum: Stratum
    n_c: int = 0
    x_c: int = 0
    n_s: int = 0
    x_s: int = 0

    def __post_init__(self) -> None:
        _text("metric", self.metric)
        _stratum(self.stratum)
        for name in ("n_c", "x_c", "n_s", "x_s"):
            _count(name, getattr(self, name))
        _at_most("x_c", self.x_c, "n_c", self.n_c)
        _at_most("x_s", self.x_s, "n_s", self.n_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Labelled rows seen by both models, champion first. Identity: metric, stratum.

    right_wrong (b of McNemar): the challenger is wrong alone; wrong_right (c): the champion is.
    """

    kind: ClassVar[str] = "pairs"
    metric: str
    stratum: Stratum
    right_right: int = 0
    right_wrong: int = 0
    wrong_right: int = 0
    wrong_wrong: int = 0

    def __post_init__(self) -> None:
        _text("metric", self.metric)
        _stratum(self.stratum)
        for name in ("right_right", "right_wrong", "wrong_right", "wrong_wrong"):
            _count(name, getattr(self, name))

    @property
    def n(self) -> int:
        return self.right_right + self.right_wrong + self.wrong_right + self.wrong_wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Hist:
    """Counts on frozen edges, right-closed bins. Identity: digest of the edges, number of bins."""

    kind: ClassVar[str] = "hist"
    edges: str
    counts: tuple[int, ...]
    nan: int = 0
    null: int = 0

    def __post_init__(self) -> None:
        _digest("edges", self.edges)
        _counts("counts", self.counts, MOST_CELLS)
        _count("nan", self.nan)
        _count("null", self.null)

    @property
    def n(self) -> int:
        return sum(self.counts) + self.nan + self.null


@dataclass(frozen=True, slots=True, kw_only=True)
class Cats:
    """Counts of frozen words. Identity: digest of the vocabulary, number of words."""

    kind: ClassVar[str] = "cats"
    vocabulary: str
    counts: tuple[int, ...]
    other: int = 0
    null: int = 0

    def __post_init__(self) -> None:
        _digest("vocabulary", self.vocabulary)
        _counts("counts", self.counts, MOST_CELLS)
        _count("other", self.other)
        _count("null", self.null)

    @property
    def n(self) -> int:
        return sum(self.counts) + self.other + self.null


@dataclass(frozen=True, slots=True, kw_only=True)
class Cube:
    """All cells of a cross table, last axis fastest. Identity: digest of the axes, cells."""

    kind: ClassVar[str] = "cube"
    axes: str
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        _digest("axes", self.axes)
        _counts("counts", self.counts, MOST_CUBE_CELLS)

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums of a column in units of `scale`, as integers. Identity: column, scale.

    Floats are never added: their sum depends on the order. A row counts as value / scale, rounded
    half to even, up to 2**53 - 1. The sums may be larger (the square of a million in cents is
    1e16), so they travel as decimal text.
    """

    kind: ClassVar[str] = "moments"
    column: str
    scale: float
    n: int = 0
    total: int = 0
    squares: int = 0

    def __post_init__(self) -> None:
        _text("column", self.column)
        _positive("scale", self.scale)
        _count("n", self.n)
        _long("total", self.total)
        _long("squares", self.squares)
        # Cauchy and Schwarz: no rows can have these sums otherwise
        if self.total * self.total > self.n * self.squares:
            raise BadSummary(
                "squares", f"{self.squares} is too small for {self.n} and {self.total}"
            )

    @classmethod
    def of(cls, values: ArrayLike, *, column: str, scale: float) -> Moments:
        """Count finite `values`, shape (n,). Raises BadSummary on infinities and NaN."""
        _positive("scale", scale)
        units = np.rint(np.asarray(values, dtype=np.float64) / scale)
        if not np.all(np.abs(units) <= LARGEST):
            raise BadSummary("total", "a value is not finite or too large for this scale")
        rows = [int(one) for one in units.tolist()]
        squares = sum(one * one for one in rows)
        return cls(column=column, scale=scale, n=len(rows), total=sum(rows), squares=squares)

    @property
    def mean(self) -> float:
        return self.total / self.n * self.scale if self.n else math.nan

    @property
    def variance(self) -> float:
        """Sample variance (n - 1), exact before the last division."""
        if self.n < 2:
            return math.nan
        spread = self.n * self.squares - self.total * self.total
        return spread / (self.n * (self.n - 1)) * self.scale**2


Summary = Counts2x2 | Pairs | Hist | Cats | Cube | Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Frozen bin edges of a numeric column, with the counts of the reference on them.

    Bins are (e[i-1], e[i]], the first from -inf, the last to +inf: len(edges) + 1 bins.
    """

    kind: ClassVar[str] = "edges"
    column: str
    dtype: str
    edges: tuple[float, ...]
    reference: tuple[int, ...]
    nan: int = 0
    null: int = 0

    def __post_init__(self) -> None:
        _text("column", self.column)
        _text("dtype", self.dtype)
        for one in self.edges:
            if type(one) is not float or not math.isfinite(one):
                raise BadSummary("edges", f"{one!r} is not a finite float")
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise BadSummary("edges", "not strictly increasing")
        _counts("reference", self.reference, MOST_CELLS)
        if len(self.reference) != len(self.edges) + 1:
            raise BadSummary(
                "reference", f"got {len(self.reference)} counts, expected {len(self.edges) + 1}"
            )
        _count("nan", self.nan)
        _count("null", self.null)

    def hist(self) -> Hist:
        """The reference itself, as a summary on these edges."""
        return Hist(edges=digest(self), counts=self.reference, nan=self.nan, null=self.null)

    def count(self, values: ArrayLike, *, null: int = 0) -> Hist:
        """Count a window, shape (n,); NaN is counted apart, missing values come as a number."""
        counts, nan = bin_counts(values, self.edges)
        return Hist(edges=digest(self), counts=_ints(counts), nan=nan, null=null)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Frozen words of a categorical column, with the counts of the reference."""

    kind: ClassVar[str] = "vocabulary"
    column: str
    words: tuple[str, ...]
    reference: tuple[int, ...]
    other: int = 0
    null: int = 0

    def __post_init__(self) -> None:
        _text("column", self.column)
        _words("words", self.words)
        _counts("reference", self.reference, MOST_CELLS)
        if len(self.reference) != len(self.words):
            raise BadSummary(
                "reference", f"got {len(self.reference)} counts, expected {len(self.words)}"
            )
        _count("other", self.other)
        _count("null", self.null)

    def cats(self) -> Cats:
        """The reference itself, as a summary on this vocabulary."""
        return Cats(
            vocabulary=digest(self), counts=self.reference, other=self.other, null=self.null
        )

    def count(self, values: Iterable[str | None]) -> Cats:
        """Count a window; an unseen word is `other`, None is `null`."""
        counts, other, null = count_words(values, self.words)
        return Cats(vocabulary=digest(self), counts=counts, other=other, null=null)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names and values of a cube's axes, last axis fastest."""

    kind: ClassVar[str] = "axes"
    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        _words("names", self.names)
        if not self.names or len(self.values) != len(self.names):
            raise BadSummary("values", f"got {len(self.values)} axes, expected {len(self.names)}")
        for one in self.values:
            _words("values", one)
            if not one:
                raise BadSummary("values", "an axis has no value")
        if math.prod(self.shape) > MOST_CUBE_CELLS:
            raise BadSummary("values", f"more than {MOST_CUBE_CELLS} cells")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(one) for one in self.values)

    def cube(self, counts: ArrayLike) -> Cube:
        """`counts` has shape `self.shape` (or is flat, last axis fastest)."""
        cells = np.asarray(counts).ravel()
        if cells.size != math.prod(self.shape):
            raise BadSummary("counts", f"got {cells.size} cells, expected {math.prod(self.shape)}")
        return Cube(axes=digest(self), counts=_ints(cells))


Artifact = Edges | Vocabulary | Axes
S = TypeVar("S", Counts2x2, Pairs, Hist, Cats, Cube, Moments)

_IDENTITY: Final[Mapping[str, tuple[str, ...]]] = {
    "counts2x2": ("metric", "stratum"),
    "pairs": ("metric", "stratum"),
    "hist": ("edges",),
    "cats": ("vocabulary",),
    "cube": ("axes",),
    "moments": ("column", "scale"),
}


def identity(summary: Summary) -> tuple[object, ...]:
    """What must be equal to merge: kind, identity fields, number of cells."""
    marks = tuple(getattr(summary, name) for name in _IDENTITY[summary.kind])
    cells = len(summary.counts) if isinstance(summary, Hist | Cats | Cube) else 0
    return (summary.kind, *marks, cells)


def merge(first: S, second: S) -> S:
    """Add two summaries. Raises Unmergeable on different identity, BadSummary on overflow."""
    one, two = identity(first), identity(second)
    if one != two:
        raise Unmergeable(f"cannot merge {one} with {two}")
    return cast(
        "S", _changed(first, lambda name: _added(getattr(first, name), getattr(second, name)))
    )


def empty(summary: S) -> S:
    """The neutral summary of the same identity."""
    return cast("S", _changed(summary, lambda name: _zero(getattr(summary, name))))


# --- several sources ---


class Report(NamedTuple):
    """What one source has counted so far in one window.

    source: the replica's boot id. sequence: rises with every report of this source.
    window: tells apart summaries without a stratum (for instance "2026-01-05T10:05"); may be "".
    """

    source: str
    sequence: int
    summary: Summary
    window: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Cumulative reports of many sources: the highest sequence per (source, window, key) wins.

    Duplicates, retries and reordering change nothing; totals add over sources.
    """

    latest: Mapping[tuple[object, ...], Report] = field(default_factory=dict)

    def add(self, reports: Iterable[Report]) -> Tally:
        """Raises Unmergeable when a source tells two different counts under one sequence."""
        found = dict(self.latest)
        for report in reports:
            key = (report.source, report.window, *identity(report.summary))
            known = found.get(key)
            if known is not None and known.sequence == report.sequence and known != report:
                raise Unmergeable(
                    f"source {report.source!r} told two different counts as number {report.sequence}"
                )
            if known is None or report.sequence > known.sequence:
                found[key] = report
        return Tally(found)

    def totals(self) -> dict[tuple[object, ...], Summary]:
        """Sum over sources; keys are (window, identity...), in sorted order of their text."""
        sums: dict[tuple[object, ...], Summary] = {}
        for key in sorted(self.latest, key=repr):
            summary = self.latest[key].summary
            known = sums.get(key[1:])
            sums[key[1:]] = summary if known is None else _merge_any(known, summary)
        return dict(sorted(sums.items(), key=lambda pair: repr(pair[0])))


# --- counting ---


def bin_counts(values: ArrayLike, edges: ArrayLike) -> tuple[NDArray[np.int64], int]:
    """Count on right-closed bins (e[i-1], e[i]].

    Args:
        values: shape (n,), numbers; +-inf fall into the outer bins.
        edges: shape (B - 1,), finite, strictly increasing; may be empty.

    Returns:
        counts, shape (B,), and the number of NaN.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    cuts = np.asarray(edges, dtype=np.float64).ravel()
    missing = np.isnan(x)
    nan = int(np.count_nonzero(missing))
    if nan:
        x = x[~missing]
    if len(x) <= FEW_ROWS:
        places = np.searchsorted(cuts, x, side="left")
        return np.bincount(places, minlength=len(cuts) + 1).astype(np.int64), nan
    # nextafter turns numpy's left-closed bins into right-closed ones, and is far faster
    bounds = np.concatenate(([-np.inf], np.nextafter(cuts, np.inf), [np.inf]))
    return np.histogram(x, bounds)[0].astype(np.int64), nan


def count_words(
    values: Iterable[str | None], words: tuple[str, ...]
) -> tuple[tuple[int, ...], int, int]:
    """Counts per word, of other words, and of None."""
    found = Counter(values)
    null = found.pop(None, 0)
    counts = tuple(found.pop(word, 0) for word in words)
    return counts, sum(found.values()), null


def coarsen(hist: Hist, edges: Edges, *, min_cell: int = MIN_CELL) -> tuple[Hist, Edges]:
    """Copy for export: no bin below `min_cell`, in the window and in the reference alike.

    Small bins are joined with their right neighbour, the last with its left one. Missing values
    are one cell; where it is below `min_cell` it is told as 0. The new edges have a digest of
    their own. A window that is smaller than `min_cell` as a whole leaves as one bin of 0.
    """
    if hist.edges != digest(edges) or len(hist.counts) != len(edges.reference):
        raise Unmergeable("the histogram was not counted on these edges")
    groups = _joined(hist.counts, edges.reference, min_cell)
    cuts = tuple(edges.edges[stop - 1] for _, stop in groups[:-1])
    coarse = replace(
        edges,
        edges=cuts,
        reference=tuple(_shown(sum(edges.reference[a:b]), min_cell) for a, b in groups),
        nan=0,
        null=_shown(edges.nan + edges.null, min_cell),
    )
    counts = tuple(_shown(sum(hist.counts[a:b]), min_cell) for a, b in groups)
    null = _shown(hist.nan + hist.null, min_cell)
    return Hist(edges=digest(coarse), counts=counts, nan=0, null=null), coarse


def coarsen_words(
    cats: Cats, vocabulary: Vocabulary, *, min_cell: int = MIN_CELL
) -> tuple[Cats, Vocabulary]:
    """Copy for export: words below `min_cell` in window or reference become `other`."""
    if cats.vocabulary != digest(vocabulary) or len(cats.counts) != len(vocabulary.words):
        raise Unmergeable("the counts were not made on this vocabulary")
    rows = list(zip(vocabulary.words, cats.counts, vocabulary.reference, strict=True))
    kept = [row for row in rows if min(row[1], row[2]) >= min_cell]
    lost = [row for row in rows if min(row[1], row[2]) < min_cell]
    coarse = replace(
        vocabulary,
        words=tuple(word for word, _, _ in kept),
        reference=tuple(count for _, _, count in kept),
        other=_shown(vocabulary.other + sum(count for _, _, count in lost), min_cell),
        null=_shown(vocabulary.null, min_cell),
    )
    return Cats(
        vocabulary=digest(coarse),
        counts=tuple(count for _, count, _ in kept),
        other=_shown(cats.other + sum(count for _, count, _ in lost), min_cell),
        null=_shown(cats.null, min_cell),
    ), coarse


# --- wire ---


def to_plain(thing: Summary | Artifact) -> dict[str, Any]:
    """The JSON value: short keys, floats as C99 hex text."""
    plain: dict[str, Any] = {"v": 1, "kind": thing.kind}
    for one in fields(thing):
        if (thing.kind, one.name) in _LONG:
            plain[_WIRE[thing.kind, one.name]] = str(getattr(thing, one.name))
            continue
        plain[_WIRE.get((thing.kind, one.name), one.name)] = _plain(getattr(thing, one.name))
    return plain


def encode(thing: Summary | Artifact) -> bytes:
    """The one spelling; `digest` is the SHA-256 of it."""
    return canonical.dumps(to_plain(thing))


def digest(thing: Summary | Artifact) -> str:
    return digests.of_bytes(encode(thing))


def decode(data: bytes) -> Summary | Artifact:
    """Read what `encode` wrote. Raises BadSummary, and nothing else, on any other bytes."""
    try:
        plain = canonical.loads(data)
    except canonical.NotCanonical as error:
        raise BadSummary("", str(error)) from None
    thing = of_plain(plain)
    if encode(thing) != data:
        raise BadSummary("", "not the canonical spelling")
    return thing


def of_plain(plain: object) -> Summary | Artifact:
    """Check a JSON value that somebody else has parsed. Raises BadSummary."""
    if not isinstance(plain, dict):
        raise BadSummary("", f"got {type(plain).__name__}, expected an object")
    if type(plain.get("v")) is not int or plain["v"] != 1:
        raise BadSummary("v", f"got {plain.get('v')!r}, expected 1")
    kind = plain.get("kind")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise BadSummary("kind", f"got {kind!r}, expected one of {', '.join(_KINDS)}")
    return _build(cls, plain)


_WIRE: Final[Mapping[tuple[str, str], str]] = {
    ("pairs", "right_right"): "rr",
    ("pairs", "right_wrong"): "rw",
    ("pairs", "wrong_right"): "wr",
    ("pairs", "wrong_wrong"): "ww",
    ("moments", "total"): "sum",
    ("moments", "squares"): "sumsq",
}
_LONG: Final = frozenset({("moments", "total"), ("moments", "squares")})
_KINDS: Final[Mapping[str, type[Summary | Artifact]]] = {
    one.kind: one for one in (Counts2x2, Pairs, Hist, Cats, Cube, Moments, Edges, Vocabulary, Axes)
}


def _build(cls: type[Summary | Artifact], plain: dict[str, Any]) -> Summary | Artifact:
    names = {_WIRE.get((cls.kind, one.name), one.name): one.name for one in fields(cls)}
    for key in plain:
        if key not in names and key not in {"v", "kind"}:
            raise BadSummary(str(key)[:LONGEST_TEXT], "unknown key")
    found: dict[str, Any] = {}
    for key, name in names.items():
        if key not in plain:
            raise BadSummary(key, "missing")
        found[name] = _PARSE.get((cls.kind, name), _same)(key, plain[key])
    try:
        return cls(**found)
    except BadSummary as error:
        short = _WIRE.get((cls.kind, error.field), error.field)
        raise BadSummary(short, error.reason) from None


def _same(_key: str, value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _hex(key: str, value: object) -> float:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise BadSummary(key, "got no C99 hex text")
    try:
        number = float.fromhex(value)
    except (ValueError, OverflowError):
        raise BadSummary(key, f"{value!r} is not C99 hex") from None
    if number.hex() != value:
        raise BadSummary(key, f"{value!r} is not the canonical spelling {number.hex()!r}")
    return number


def _decimal(key: str, value: object) -> int:
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise BadSummary(key, "got no decimal text of at most 60 digits")
    return int(value)


def _hexes(key: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise BadSummary(key, "got no list")
    if len(value) > MOST_CELLS:
        raise BadSummary(key, f"more than {MOST_CELLS} entries")
    return tuple(_hex(key, one) for one in value)


def _lists(key: str, value: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise BadSummary(key, "got no list")
    return tuple(_same(key, one) for one in value)


def _stratum_of(key: str, value: object) -> Stratum:
    if not isinstance(value, dict) or set(value) != set(Stratum._fields):
        raise BadSummary(key, f"expected an object with {', '.join(Stratum._fields)}")
    return Stratum(**value)


_PARSE: Final[Mapping[tuple[str, str], Callable[[str, object], object]]] = {
    ("counts2x2", "stratum"): _stratum_of,
    ("pairs", "stratum"): _stratum_of,
    ("moments", "scale"): _hex,
    ("moments", "total"): _decimal,
    ("moments", "squares"): _decimal,
    ("edges", "edges"): _hexes,
    ("axes", "values"): _lists,
}


def _plain(value: object) -> object:
    match value:
        case Stratum():
            return value._asdict()
        case float():
            return value.hex()
        case tuple():
            return [_plain(one) for one in value]
        case _:
            return value


# --- small checks; each names its field ---


def _integer(name: str, value: object) -> None:
    if type(value) is not int:
        raise BadSummary(name, f"got {type(value).__name__}, expected an integer")
    if abs(value) > LARGEST:
        raise BadSummary(name, "beyond 2**53 - 1")


def _long(name: str, value: object) -> None:
    if type(value) is not int:
        raise BadSummary(name, f"got {type(value).__name__}, expected an integer")
    if abs(value) >= 10**60:
        raise BadSummary(name, "more than 60 digits")


def _count(name: str, value: object) -> None:
    _integer(name, value)
    if cast("int", value) < 0:
        raise BadSummary(name, "negative")


def _counts(name: str, values: object, most: int) -> None:
    if not isinstance(values, tuple):
        raise BadSummary(name, f"got {type(values).__name__}, expected a list")
    if len(values) > most:
        raise BadSummary(name, f"more than {most} cells")
    # one pass in C for the usual case; the loop only finds the culprit
    if all(type(one) is int for one in values) and (
        not values or (min(values) >= 0 and sum(values) <= LARGEST)
    ):
        return
    for one in values:
        _count(name, one)
    raise BadSummary(name, "the sum is beyond 2**53 - 1")


def _at_most(name: str, value: int, limit_name: str, limit: int) -> None:
    if value > limit:
        raise BadSummary(name, f"{value} is more than {limit_name} = {limit}")


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise BadSummary(name, f"got {type(value).__name__}, expected text")
    if len(value) > LONGEST_TEXT:
        raise BadSummary(name, f"longer than {LONGEST_TEXT}")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise BadSummary(name, "holds a lone surrogate")


def _words(name: str, values: object) -> None:
    if not isinstance(values, tuple):
        raise BadSummary(name, f"got {type(values).__name__}, expected a list")
    if len(values) > MOST_CELLS:
        raise BadSummary(name, f"more than {MOST_CELLS} entries")
    for one in values:
        _text(name, one)
    if len(set(values)) != len(values):
        raise BadSummary(name, "an entry stands twice")


def _digest(name: str, value: object) -> None:
    if not isinstance(value, str) or not digests.is_digest(value):
        raise BadSummary(name, "not a digest `sha256:<64 hex>`")


def _positive(name: str, value: object) -> None:
    if type(value) is not float or not math.isfinite(value) or value <= 0:
        raise BadSummary(name, "not a finite float above 0")


def _stratum(value: object) -> None:
    if not isinstance(value, Stratum):
        raise BadSummary("stratum", f"got {type(value).__name__}, expected a stratum")
    _count("stratum.t", value.t)
    _text("stratum.zone", value.zone)
    _count("stratum.step", value.step)


def _ints(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(values.tolist())


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, tuple):
        return tuple(x + y for x, y in zip(a, b, strict=True))
    return a + b


def _zero(a: Any) -> Any:
    return (0,) * len(a) if isinstance(a, tuple) else 0


def _changed(summary: Summary, value_of: Callable[[str], object]) -> Summary:
    marks = _IDENTITY[summary.kind]
    changes = {one.name: value_of(one.name) for one in fields(summary) if one.name not in marks}
    return replace(summary, **cast("dict[str, Any]", changes))


def _merge_any(first: Summary, second: Summary) -> Summary:
    return cast("Summary", merge(cast("Hist", first), cast("Hist", second)))


def _shown(count: int, min_cell: int) -> int:
    return count if count >= min_cell else 0


def _joined(
    window: tuple[int, ...], reference: tuple[int, ...], min_cell: int
) -> list[tuple[int, int]]:
    """Runs [start, stop) of bins, each with at least `min_cell` in both; at least one run."""
    groups: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(window) + 1):
        if min(sum(window[start:stop]), sum(reference[start:stop])) >= min_cell:
            groups.append((start, stop))
            start = stop
    if start < len(window):
        if groups:
            start = groups.pop()[0]
        groups.append((start, len(window)))
    return groups
