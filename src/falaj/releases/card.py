"""The model card: what the evidence says, in Markdown; what nobody said is named as missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from falaj.base import digests, time
from falaj.facts.checks import CheckResult, GateReport, shown_word
from falaj.facts.data import Label
from falaj.facts.models import Schema, Tensor
from falaj.facts.releases import DatasetRef
from falaj.facts.runs import Origin, Run

__all__ = ["NOTES", "card", "memory_of"]

# What only people can say: key of the project file -> heading. Order of the card.
NOTES: Final[Mapping[str, str]] = {
    "summary": "Summary",
    "intended_use": "Intended use",
    "users": "Intended users",
    "out_of_scope": "Out of scope",
    "limits": "Known limits",
    "ethics": "Ethical considerations",
    "owner": "Owner",
    "contact": "Contact",
}


BOUNDS: Final = (
    "Verdicts are decided on the bound of the interval, not on the value. "
    "Bounds are one-sided, 95 %."
)
ESCAPES: Final = (
    ("\\", "\\\\"),
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    *((sign, f"\\{sign}") for sign in "`*[]|~"),
)


def card(
    *,
    model: str,
    version: str,
    task: str,
    runtime: str,
    schema: Schema,
    threshold: str | None,
    report: GateReport,
    run: Run,
    datasets: Sequence[DatasetRef],
    label: Label,
    notes: Mapping[str, str],
    explained: bool = True,
) -> str:
    """The same facts give the same text. notes: words of people under the keys of NOTES.

    explained: whether somebody asked what moves the answers.
    """
    missing = [title for key, title in NOTES.items() if not notes.get(key, "").strip()]
    lines = [f"# Model card: {_line(model)} {_line(version)}", ""]
    for key, title in NOTES.items():
        if title not in missing:
            lines += [f"## {title}", "", _paragraphs(notes[key]), ""]
    lines += [
        "## What it is",
        "",
        *_table(
            ("", ""),
            [
                ("Task", task),
                ("Runtime", runtime),
                ("Decision threshold", threshold or "none"),
                ("Model files", report.subject),
                ("Run", run.id),
                ("Pipeline", run.pipeline),
                ("Code", _code(run)),
                ("Seed", str(run.seed)),
                ("Trained" if run.origin is None else "Imported", time.text(run.started)),
                *imported(run.origin),
                *((f"Parameter {key}", str(run.parameters[key])) for key in sorted(run.parameters)),
            ],
        ),
        "",
        "## What goes in and out",
        "",
        *_table(
            ("Direction", "Name", "Type", "Shape", "Range", "Unit"),
            [
                *(row for tensor in schema.inputs for row in _tensor("in", tensor)),
                *(row for tensor in schema.outputs for row in _tensor("out", tensor)),
            ],
        ),
        "",
        "## Data",
        "",
        *_table(
            ("Dataset", "Rows", "Content"),
            [(data.dataset, str(data.rows), digests.short(data.content)) for data in datasets],
        ),
        "",
        _labelled(label),
        "",
        "## How good it is",
        "",
        BOUNDS,
        "",
    ]
    memory = memory_of(report)
    if memory is not None:
        lines += [f"Peak memory while it was timed: {memory:.0f} MB.", ""]
    for gate in sorted({*report.required, *(result.gate for result in report.results)}):
        asked = "required" if gate in report.required else "not required"
        results = [result for result in report.results if result.gate == gate]
        if gate.endswith("-shown"):
            lines += [f"### {_line(gate.removesuffix('-shown'))}, told and not counted", ""]
        else:
            lines += [f"### {_line(gate)}: {report.verdict_of(gate)} ({asked})", ""]
        lines += _results(results) if results else ["No check was made.", ""]
    if report.waivers:
        lines += ["## Waivers", ""]
        lines += _table(
            ("Check", "Owner", "Reason", "Expires"),
            [(w.check, w.owner, w.reason, time.text(w.expires)) for w in report.waivers],
        )
        lines += [""]
    if missing:
        lines += [
            "## Missing",
            "",
            "Nobody has stated: " + ", ".join(title.lower() for title in missing) + ".",
            "",
        ]
    if not explained:
        lines += ["" if missing else "## Missing\n", "What moves its answers: nobody has asked."]
    return "\n".join(lines).rstrip() + "\n"


def imported(origin: Origin | None) -> list[tuple[str, str]]:
    """Where it came from; its metrics there are claims, and named so."""
    if origin is None:
        return []
    return [
        ("Origin", f"{origin.server} {origin.name}/{origin.version}, {origin.flavor}"),
        *(
            (f"Claimed there, never checked: {name}", _number(origin.claimed[name]))
            for name in sorted(origin.claimed)
        ),
    ]


def memory_of(report: GateReport) -> float | None:
    """MB that the served draft held at most, where it was measured."""
    for result in report.results:
        peak = result.details.get("memory_mb", {}).get("peak")
        if peak is not None:
            return float(peak)
    return None


def _results(results: Sequence[CheckResult]) -> list[str]:
    rows = [
        (
            result.check,
            shown_word(result.gate, result.verdict, result.details.get("severity", "")),
            _number(result.value),
            f"{_number(result.low)} to {_number(result.high)}",
            _number(result.limit),
            str(result.n) if result.n else "",
            result.reason,
        )
        for result in results
    ]
    return [*_table(("Check", "Verdict", "Value", "Interval", "Limit", "Rows", "Reason"), rows), ""]


def _tensor(direction: str, tensor: Tensor) -> list[tuple[str, ...]]:
    shape = " x ".join("any" if side < 0 else str(side) for side in tensor.shape)
    whole = (direction, tensor.name, str(tensor.datatype), shape, "", "")
    return [
        whole,
        *(
            (
                direction,
                f"{tensor.name}.{column.name}",
                str(tensor.datatype),
                "may be missing" if column.nullable else "",
                f"{_number(column.minimum)} to {_number(column.maximum)}",
                column.unit,
            )
            for column in tensor.columns
        ),
    ]


def _code(run: Run) -> str:
    if not run.code.commit:
        return "not under version control"
    return run.code.commit + (" with local changes" if run.code.dirty else "")


def _number(value: float | None) -> str:
    return "open" if value is None else f"{value:.6g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["None."]
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(_line(cell) for cell in row) + " |" for row in rows),
    ]


def _labelled(label: Label) -> str:
    countries = ", ".join(label.countries) or "not stated"
    purposes = ", ".join(label.purposes) or "not stated"
    return _line(
        f"Classification: {label.classification}. Countries: {countries}. Purposes: {purposes}."
    )


def _line(words: str) -> str:
    """One line that Markdown shows as it is: no markup, no HTML, no cell of its own."""
    plain = " ".join(words.split())
    for sign, shown in ESCAPES:
        plain = plain.replace(sign, shown)
    return f"\\{plain}" if plain[:1] in {"#", "-", "+", "=", ">"} else plain


def _paragraphs(words: str) -> str:
    return "\n\n".join(_line(part) for part in words.split("\n\n") if part.strip())
