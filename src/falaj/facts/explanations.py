"""What a model looks at, and how two models differ on the same rows."""

from __future__ import annotations

from falaj.facts.wire import Fact

__all__ = [
    "Comparison",
    "Dependence",
    "Explanation",
    "Importance",
    "Pair",
    "Served",
    "Sketch",
]


class Importance(Fact, frozen=True, kw_only=True):
    """How much of the metric is lost when these columns are shuffled together.

    value: mean loss over the repeats. low, high: its one-sided 95 % bounds; None where there are
    too few rows for any. p: of "nothing is lost", adjusted over all (Holm). spread: standard
    deviation over the repeats. alike: other columns that say nearly the same, which may hide it.
    """

    name: str
    columns: tuple[str, ...]
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    spread: float = 0.0
    alike: tuple[str, ...] = ()


class Dependence(Fact, frozen=True, kw_only=True):
    """How the mean score moves with one column, all else as it is.

    at: values of the column. mean: mean score there. low, high: between these lie the single
    curves of 80 % of the rows. lines: single curves of a few rows. deciles: of the column's own
    values, to show where rows are. missing: mean score without the column, where rows lack it.
    """

    column: str
    at: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    lines: tuple[tuple[float, ...], ...] = ()
    deciles: tuple[float, ...] = ()
    missing: float | None = None
    missing_share: float = 0.0


class Explanation(Fact, frozen=True, kw_only=True):
    """What moves a model's answers on its held-out rows. The same question gives the same answer.

    subject: digest of the model's files. evaluation: digest of the rows. rows: that were asked,
    out of of_rows. scored: answers of the model that it took.
    """

    subject: str
    evaluation: str
    model_version: str = ""
    run: str = ""
    metric: str
    baseline: float
    rows: int
    of_rows: int
    repeats: int
    seed: int
    scored: int
    importances: tuple[Importance, ...]  # the largest loss first
    dependences: tuple[Dependence, ...]


class Pair(Fact, frozen=True, kw_only=True):
    """One number of two models on the same rows.

    difference: candidate less champion. low, high: its one-sided 95 % bounds; None without enough
    rows. p: of "not worse", adjusted over all slices (Holm), where slices are compared.
    word: better | worse | no difference yet | no data.
    """

    name: str  # a metric, or `column=value` of a slice
    metric: str
    candidate: float | None = None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    word: str = "no data"


class Sketch(Fact, frozen=True, kw_only=True):
    """One model's answers in pictures: ROC, reliability, and where the scores lie.

    told, happened: mean score and share of yes in bins of equal mass. low, high: 95 % bounds of the
    share. shares: of the rows in each bin of `edges`.
    """

    name: str
    roc_x: tuple[float, ...]
    roc_y: tuple[float, ...]
    told: tuple[float, ...]
    happened: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    edges: tuple[float, ...]
    shares: tuple[float, ...]


class Served(Fact, frozen=True, kw_only=True):
    """How a model answered when it was served for its gate."""

    name: str
    p99_ms: float | None = None
    low: float | None = None
    high: float | None = None
    peak_mb: float | None = None
    n: int = 0


class Comparison(Fact, frozen=True, kw_only=True):
    """Two models on the same held-out rows: the candidate's."""

    candidate: str
    champion: str
    evaluation: str
    rows: int
    positives: int
    metrics: tuple[Pair, ...]
    slices: tuple[Pair, ...]
    sketches: tuple[Sketch, ...]
    served: tuple[Served, ...] = ()
