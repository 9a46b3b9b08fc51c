"""A run as one page of HTML: self-contained, without script, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from falaj.base.drawing import plot_svg

__all__ = ["brief", "page"]

STYLE: Final = (
    "body{font:14px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0}td,th{padding:.2em .8em .2em 0;text-align:left;"
    "border-bottom:1px solid #ddd;vertical-align:top}pre{white-space:pre-wrap;background:#f6f6f6;"
    "padding:.6em}code{font-size:.9em}figure{margin:1em 0}img{max-width:100%;background:#fff}"
)
POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MOST: Final = 20_000  # bytes of the small form
CELL: Final = 120  # characters of a cell of the small form


def page(
    run: Mapping[str, Any],
    plots: Sequence[Mapping[str, Any]],
    *,
    pictures: Sequence[Mapping[str, Any]] = (),
    files: Sequence[Mapping[str, Any]] = (),
    logs: Mapping[str, str] = {},
    tests: Sequence[Mapping[str, Any]] = (),
) -> str:
    """run, plots, pictures, files, tests: builtins of the facts. logs: what failed steps printed.

    tests: the newest report on the run's code, or none.
    """
    title = f"run {run['id']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        pairs(facts_of(run)),
        failure(run),
        section("Metrics", pairs(sorted(run["metrics"].items()))),
        section("Plots", "".join(plot_svg(plot) for plot in plots)),
        section("Pictures", "".join(figure(picture) for picture in pictures)),
        section("Parameters", pairs(run["parameters"].items())),
        section(
            "Datasets", rows_of((d["dataset"], d["rows"], d["content"]) for d in run["datasets"])
        ),
        section("Set aside", rows_of(set_aside_of(run), ("dataset", "rows", "checks"))),
        section("Steps", rows_of(steps_of(run), ("step", "status", "time", "why"))),
        *(said_by(step, files) for step in run["steps"]),
        section("Checks of other suites", rows_of(checks_of(run), ("check", "verdict", "why"))),
        *(
            section(
                f"Tests of this code: {escape(report['verdict'])}",
                rows_of(
                    (test["name"], test["outcome"], f"{test['seconds']:.2f} s", test["message"])
                    for test in report["tests"]
                ),
            )
            for report in tests
        ),
        *(
            f"<h2>Log of {escape(name)}</h2><pre>{escape(text)}</pre>"
            for name, text in logs.items()
        ),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        + "".join(body)
        + "</body></html>"
    )


def brief(run: Mapping[str, Any]) -> str:
    """The small form for notebooks: at most 20 KB whatever the run holds."""
    for rows in (40, 20, 10, 5):
        made = small(run, rows)
        if len(made.encode()) <= MOST:
            return made
    return small(run, 0)


def small(run: Mapping[str, Any], rows: int) -> str:
    metrics = sorted(run["metrics"].items())
    steps = list(steps_of(run))
    over = [(len(metrics) - rows, "metrics"), (len(steps) - rows, "steps")]
    more = ", ".join(f"{count} more {what}" for count, what in over if count > 0)
    return (
        "<div>"
        f"<b>run {escape(cut(run['id']))}</b> {escape(run['status'])}, {escape(cut(run['pipeline']))}"
        + failure(run, width=120)
        + pairs((cut(name), value) for name, value in metrics[:rows])
        + rows_of(
            (tuple(cut(cell) for cell in row) for row in steps[:rows]),
            ("step", "status", "time", "why"),
        )
        + (f"<p>and {more}</p>" if more else "")
        + "</div>"
    )


def failure(run: Mapping[str, Any], *, width: int = 300) -> str:
    """At most 20 lines, the user's line first."""
    if not run["error"]:
        return ""
    lines = run["error"].splitlines()[:20]
    return f"<pre>{escape(chr(10).join(line[:width] for line in lines))}</pre>"


def facts_of(run: Mapping[str, Any]) -> list[tuple[str, Any]]:
    code, environment = run["code"], run["environment"]
    dirty = ", with changes that are not committed" if code["dirty"] else ""
    return [
        ("status", run["status"]),
        ("pipeline", run["pipeline"]),
        ("seed", run["seed"]),
        ("started", run["started"]),
        ("ended", run["ended"] or ""),
        ("by", f"{run['principal']} ({run['trigger']})"),
        ("commit", f"{code['commit']}{dirty}"),
        ("lock", environment["lock"]),
        *([("from", run["parent"])] if run.get("parent") else []),
    ]


def steps_of(run: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    for step in run["steps"]:
        tries = len(step.get("attempts", ()))
        more = f", {tries} attempts" if tries > 1 else ""
        yield step["step"], step["status"], f"{step['seconds']:.2f} s{more}", step["why"]


def set_aside_of(run: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Rows that no step read, as they broke a contract."""
    for one in run.get("set_aside", ()):
        checks = ", ".join(f"{name} {n:,}" for name, n in one["checks"].items())
        yield one["dataset"], f"{one['rows']:,} of {one['of']:,}", checks


def said_by(step: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> str:
    """What a step said about itself, and the names of what it kept."""
    said = [
        *((f"param {name}", value) for name, value in step.get("params", {}).items()),
        *((f"tag {name}", value) for name, value in step.get("tags", {}).items()),
        *((f["name"], f"{f['size']:,} bytes") for f in files if f["step"] == step["step"]),
    ]
    return section(f"Said by {escape(step['step'])}", pairs(said))


def figure(picture: Mapping[str, Any]) -> str:
    """As an image: a script inside an SVG does not run, and nothing is loaded."""
    words = escape(f"{picture['step']}: {picture['name']}")
    return (
        f'<figure><img alt="{words}" src="data:{escape(picture["media"])};base64,'
        f'{escape(picture["data"])}"><figcaption>{words}</figcaption></figure>'
    )


def checks_of(run: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """What other tools found; `(only told)` where it does not count."""
    for step in run["steps"]:
        for check in step.get("checks", ()):
            told = "" if check["gate"] == "data" else " (only told)"
            yield check["check"], f"{check['verdict']}{told}", check["reason"]


def section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    return rows_of((name, shown(value)) for name, value in rows)


def shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def rows_of(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    lines = [
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    ]
    if not lines:
        return ""
    top = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>" if head else ""
    return f"<table>{top}{''.join(lines)}</table>"


def cut(text: Any) -> str:
    told = str(text)
    return told if len(told) <= CELL else told[: CELL - 1] + "…"
