"""What a model looks at, and how two differ, as pages of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from falaj.base.charts import Band, Line, bars, chart, interval, short
from falaj.base.sheets import Html, bdi, digest, h, join, sheet, table, verdict
from falaj.facts.explanations import (
    Comparison,
    Dependence,
    Explanation,
    Importance,
    Pair,
    Served,
    Sketch,
)

__all__ = ["comparison_page", "explanation_page", "explanation_parts", "pictures"]

SURE = 0.05
Say = Callable[[str], str]


def plainly(words: str) -> str:
    return words


def explanation_page(found: Explanation) -> str:
    """One page without script; every text is escaped."""
    return sheet(
        f"What moves {found.model_version or found.subject}",
        [
            Html(f"<h1>What moves {h(found.model_version or found.subject)}</h1>"),
            Html(f'<p class="lead">{h(headline(found))}</p>'),
            Html(f"<section>{join(explanation_parts(found))}</section>"),
            Html(
                "<section><h2>How to read it</h2><p>A column is shuffled among the rows; what the "
                "metric loses is what the model got from it. Columns that say nearly the same "
                "stand in for each other: each alone looks idle, so they are named. A curve "
                "shows the mean score when the column is set to a value in every row, and the "
                "band holds the curves of 80 % of the rows: where it is wide, other columns "
                "decide what this one does. Both describe the model, not what causes an "
                "outcome.</p></section>"
            ),
            Html(f"<section><h2>How it was made</h2>{made(found)}</section>"),
        ],
    )


def explanation_parts(found: Explanation, say: Say = plainly) -> list[Html]:
    """Importances, then curves: the model card takes them too, in its language."""
    return [
        Html(f"<h2>{h(say('What is lost without it'))}</h2>"),
        losses(found, say),
        Html(f'<h2>{h(say("How the score moves"))}</h2><div class="pics">'),
        *(curve(one, say) for one in found.dependences),
        Html("</div>"),
    ]


def headline(found: Explanation) -> str:
    sure = [one for one in found.importances if matters(one)]
    idle = len(found.importances) - len(sure)
    if not sure:
        return f"No column is proven to matter on {found.rows} rows."
    first = ", ".join(one.name for one in sure[:3])
    more = f"; for {idle} more nothing is proven" if idle else ""
    return f"{len(sure)} of {len(found.importances)} are proven to matter, first {first}{more}."


def matters(one: Importance) -> bool:
    return one.p is not None and one.p < SURE and one.value > 0


def losses(found: Explanation, say: Say) -> Html:
    ends = [v for one in found.importances for v in (one.low, one.high, one.value) if v is not None]
    span = (min([0.0, *ends]), max([0.0, *ends]))
    return table(
        (
            say("Column"),
            Html(f"{h(say('Loss of'))} {bdi(found.metric)}"),
            say("95 % bounds"),
            "",
            say("What it means"),
        ),
        (
            (
                one.name,
                short(one.value),
                f"{short(one.low)} to {short(one.high)}"
                if one.low is not None
                else say("too few rows"),
                interval(one.value, one.low, one.high, span, limit=0.0),
                meaning(one, say),
            )
            for one in found.importances
        ),
        "-nnf-",
    )


def meaning(one: Importance, say: Say) -> Html:
    harms = one.high is not None and one.high < 0
    words: list[object] = [say("matters" if matters(one) else "not proven to matter")]
    if harms:
        words = [say("the metric is better with it shuffled: ask why")]
    if len(one.columns) > 1:
        words.append(Html(f"{h(say('shuffled together'))}: {bdi(', '.join(one.columns))}"))
    if one.alike:
        words.append(Html(f"{h(say('says nearly the same as'))} {bdi(', '.join(one.alike))}"))
    return join(words, "; ")


def curve(one: Dependence, say: Say) -> Html:
    if not one.at:
        return Html("")
    lines = [Line("", one.at, line, "thin") for line in one.lines]
    lines.append(Line(say("mean score"), one.at, one.mean))
    picture = chart(
        one.column,
        lines,
        across=one.column,
        up=say("score"),
        bands=[Band("", one.at, one.low, one.high)],
        rug=one.deciles,
        numbers=say("Numbers"),
    )
    if one.missing is None:
        return picture
    share = f"{one.missing_share:.1%}"
    without = f"{h(say('mean score without it'))}: {bdi(short(one.missing))}"
    lack = f"{h(say('rows that lack it'))}: {bdi(share)}"
    return Html(f'<div>{picture}<p class="muted">{lack}; {without}</p></div>')


def made(found: Explanation) -> Html:
    return table(
        ("", ""),
        (
            ("Model files", digest(found.subject)),
            ("Run", digest(found.run)),
            ("Held-out rows", digest(found.evaluation)),
            (f"{found.metric} as it is", short(found.baseline)),
            ("Rows asked", f"{found.rows:,} of {found.of_rows:,}, drawn by the seed"),
            ("Shuffles of each", str(found.repeats)),
            ("Seed", str(found.seed)),
            ("Answers of the model", f"{found.scored:,}"),
        ),
    )


# --- two models ---


def comparison_page(found: Comparison) -> str:
    """Candidate against champion: one page without script, every text escaped."""
    title = f"{found.candidate} against {found.champion}"
    return sheet(
        title,
        [
            Html(f"<h1>{h(title)}</h1>"),
            Html(f'<p class="lead">{h(in_words(found))}</p>'),
            Html(
                f"<section><h2>On the same {found.rows:,} rows</h2>{pairs(found.metrics)}"
                '<p class="muted">Differences are candidate less champion, paired row by row; '
                "bounds are one-sided, 95 % each. A gate asks for a margin; here only which way "
                "the data point.</p></section>"
            ),
            Html(
                '<section><h2>Pictures</h2><div class="pics">'
                f"{join(pictures(found.sketches))}</div></section>"
            ),
            Html(f"<section><h2>Slices</h2>{slices(found)}</section>"),
            Html(f"<section><h2>Served</h2>{served(found.served)}</section>"),
            Html(f'<p class="muted">Held-out rows {digest(found.evaluation)}</p>'),
        ],
    )


def in_words(found: Comparison) -> str:
    by = {kind: [p for p in found.metrics if p.word == kind] for kind in ("better", "worse")}
    told = [f"{kind} in {', '.join(p.name for p in some)}" for kind, some in by.items() if some]
    harmed = [one.name for one in found.slices if one.word == "worse"]
    if harmed:
        told.append(f"worse where {', '.join(harmed[:3])}")
    return f"The candidate is {'; '.join(told)}." if told else "No difference is proven."


def pairs(found: Sequence[Pair]) -> Html:
    """In relative width: each row has its own span, as metrics have their own units."""
    return table(
        ("", "Candidate", "Champion", "Difference", "95 % bounds", "", "Rows", ""),
        (
            (
                one.name,
                short(one.candidate),
                short(one.champion),
                short(one.difference),
                f"{short(one.low)} to {short(one.high)}" if one.low is not None else "too few rows",
                forest(one, found),
                f"{one.n:,}",
                verdict(one.word),
            )
            for one in found
        ),
        "-nnnnfn-",
    )


def forest(one: Pair, among: Sequence[Pair]) -> Html:
    same = [p for p in among if p.metric == one.metric]
    ends = [v for p in same for v in (p.low, p.high, p.difference) if v is not None]
    widest = max((abs(v) for v in ends), default=0.0) or 1.0
    if one.low is None:
        return Html("")
    return interval(one.difference, one.low, one.high, (-widest, widest), limit=0.0)


def slices(found: Comparison) -> Html:
    if not found.slices:
        return Html(
            "<p>The held-out rows have no columns beside the model's inputs. Return them with the "
            "rows to compare slices.</p>"
        )
    return Html(
        f"{pairs(found.slices)}"
        '<p class="muted">Accuracy. A word counts all slices together (Holm); below 50 rows '
        "nothing is said.</p>"
    )


def pictures(found: Sequence[Sketch], say: Say = plainly) -> list[Html]:
    kinds = "ab"
    half = [Line("", (0.0, 1.0), (0.0, 1.0), "ref")]
    unit = (0.0, 1.0)
    return [
        chart(
            say("ROC"),
            [
                *half,
                *(Line(s.name, s.roc_x, s.roc_y, k) for k, s in zip(kinds, found, strict=False)),
            ],
            across=say("false positive rate"),
            up=say("true positive rate"),
            x_range=unit,
            y_range=unit,
            numbers=say("Numbers"),
        ),
        *(
            chart(
                f"{say('Reliability')}: {s.name}",
                [*half, Line(s.name, s.told, s.happened, k, dots=True)],
                across=say("mean score"),
                up=say("share of yes"),
                bands=[Band("95 %", s.told, s.low, s.high)],
                numbers=say("Numbers"),
            )
            for k, s in zip(kinds, found, strict=False)
        ),
        scores(found, say),
    ]


def scores(found: Sequence[Sketch], say: Say) -> Html:
    """Distributions on the edges of the first; others only where theirs are the same."""
    edges = found[0].edges
    same = [(s.name, s.shares) for s in found if s.edges == edges]
    return bars(
        say("Where the scores lie"),
        edges,
        same,
        across=say("score"),
        up=say("share of the rows"),
        numbers=say("Numbers"),
    )


def served(found: Sequence[Served]) -> Html:
    if not any(one.p99_ms is not None for one in found):
        return Html("<p>Neither was timed: require the gate <code>latency</code>.</p>")
    return table(
        ("", "p99, ms", "95 % bounds, ms", "Peak memory, MB", "Answers"),
        (
            (
                one.name,
                short(one.p99_ms) or "not timed",
                f"{short(one.low) or 'open'} to {short(one.high) or 'open'}" if one.n else "",
                short(one.peak_mb) or "not told",
                f"{one.n:,}",
            )
            for one in found
        ),
        "-nnnn",
    )
