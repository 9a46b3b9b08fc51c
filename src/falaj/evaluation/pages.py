"""What a model looks at, as a page of its own."""

from __future__ import annotations

from falaj.base.charts import Band, Line, chart, interval, short
from falaj.base.sheets import Html, digest, h, join, sheet, table
from falaj.facts.explanations import Dependence, Explanation, Importance

__all__ = ["explanation_page", "explanation_parts"]

SURE = 0.05


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


def explanation_parts(found: Explanation) -> list[Html]:
    """Importances, then curves: the model card takes them too."""
    return [
        Html("<h2>What is lost without it</h2>"),
        losses(found),
        Html('<h2>How the score moves</h2><div class="pics">'),
        *(curve(one) for one in found.dependences),
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


def losses(found: Explanation) -> Html:
    ends = [v for one in found.importances for v in (one.low, one.high, one.value) if v is not None]
    span = (min([0.0, *ends]), max([0.0, *ends]))
    return table(
        ("Column", f"Loss of {found.metric}", "95 % bounds", "", "What it means"),
        (
            (
                one.name,
                short(one.value),
                f"{short(one.low)} to {short(one.high)}" if one.low is not None else "too few rows",
                interval(one.value, one.low, one.high, span, limit=0.0),
                meaning(one),
            )
            for one in found.importances
        ),
        "-nnf-",
    )


def meaning(one: Importance) -> str:
    words = "matters" if matters(one) else "not proven to matter"
    if len(one.columns) > 1:
        words += f"; {', '.join(one.columns)} shuffled together"
    if one.alike:
        words += f"; says nearly the same as {', '.join(one.alike)}, shuffle them together"
    return words


def curve(one: Dependence) -> Html:
    if not one.at:
        return Html("")
    lines = [Line("", one.at, line, "thin") for line in one.lines]
    lines.append(Line("mean score", one.at, one.mean))
    picture = chart(
        one.column,
        lines,
        across=one.column,
        up="score",
        bands=[Band("80 % of the rows", one.at, one.low, one.high)],
        rug=one.deciles,
    )
    if one.missing is None:
        return picture
    share = (
        f"{one.missing_share:.1%} of the rows lack it; mean score without it {short(one.missing)}"
    )
    return Html(f'<div>{picture}<p class="muted">{h(share)}</p></div>')


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
