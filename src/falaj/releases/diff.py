"""What differs between two releases: data, features, code, parameters, packages, numbers, evidence.

Pure: works on manifests, runs and statements that were verified before. Same facts, same rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from falaj.base import digests
from falaj.base.locks import Lock
from falaj.base.sheets import Html, digest, h, sheet, table
from falaj.facts.attestations import GATE
from falaj.facts.releases import DiffRow, Manifest, Release, ReleaseDiff
from falaj.facts.runs import Run
from falaj.facts.wire import digest as digest_of

__all__ = ["SECTIONS", "Side", "compare", "in_words", "page"]

SECTIONS: Final = {
    "data": "Data",
    "features": "Features and answers",
    "code": "Code",
    "parameters": "Parameters",
    "dependencies": "Dependencies",
    "metrics": "Metrics",
    "gates": "Gates",
    "evidence": "Evidence",
}
LETTERS: Final = {"A": "added", "D": "removed"}


class Side(NamedTuple):
    """One release. statements: evidence file -> statement whose signature held."""

    release: Release
    manifest: Manifest
    run: Run
    lock: Lock
    statements: Mapping[str, Mapping[str, Any]]
    findings: tuple[str, ...] = ()


def compare(one: Side, other: Side, files: Sequence[tuple[str, str]] | None = None) -> ReleaseDiff:
    """From `one` to `other`. files: what git says differs between their commits, as (letter, path)."""
    rows = [
        *_data(one, other),
        *_features(one, other),
        *_code(one, other, files),
        *_parameters(one, other),
        *_dependencies(one, other),
        *_metrics(one, other),
        *_gates(one, other),
        *_evidence(one, other),
    ]
    return ReleaseDiff(
        one=one.release.id,
        other=other.release.id,
        one_version=one.release.version,
        other_version=other.release.version,
        one_model=one.release.model,
        other_model=other.release.model,
        rows=tuple(rows),
        findings=(
            *(f"{one.release.version}: {words}" for words in one.findings),
            *(f"{other.release.version}: {words}" for words in other.findings),
        ),
    )


def _row(section: str, what: str, before: object, after: object, note: str = "") -> list[DiffRow]:
    """None stands for what is not there; equal ones give no row."""
    if before == after:
        return []
    change = "added" if before is None else "removed" if after is None else "changed"
    return [
        DiffRow(
            section=section,
            what=what,
            change=change,
            before="" if before is None else str(before),
            after="" if after is None else str(after),
            note=note,
        )
    ]


def _keyed(
    section: str, one: Mapping[str, object], other: Mapping[str, object]
) -> Iterator[DiffRow]:
    for name in sorted({*one, *other}):
        yield from _row(section, name, one.get(name), other.get(name))


def _data(one: Side, other: Side) -> Iterator[DiffRow]:
    before = {ref.dataset: ref for ref in one.manifest.datasets}
    after = {ref.dataset: ref for ref in other.manifest.datasets}
    known = {d.dataset: d for d in one.run.datasets}
    now = {d.dataset: d for d in other.run.datasets}
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            said = [None if ref is None else f"{ref.rows:,} rows, {ref.content}" for ref in (a, b)]
            yield from _row("data", name, said[0], said[1])
            continue
        yield from _row("data", f"{name}: rows", a.rows, b.rows)
        yield from _row("data", f"{name}: content", a.content, b.content)
        if a.content == b.content:
            yield from _row("data", f"{name}: files", a.bytes, b.bytes, "the values are the same")
        c, d = known.get(name), now.get(name)
        if c is None or d is None:
            continue
        yield from _row("data", f"{name}: source", c.source, d.source)
        yield from _row("data", f"{name}: contract", c.contract or None, d.contract or None)
        yield from _row("data", f"{name}: schema", c.schema, d.schema)
        for column in sorted({*c.columns, *d.columns}):
            what = f"{name}: column {column}"
            yield from _row("data", what, c.columns.get(column), d.columns.get(column))
    labels = [_flat("label", side.manifest.label) for side in (one, other)]
    yield from _keyed("data", *labels)


def _flat(name: str, fact: Any) -> dict[str, object]:
    return {
        f"{name}: {field}": ", ".join(map(str, value))
        if isinstance(value := getattr(fact, field), tuple)
        else str(value)
        for field in fact.__struct_fields__
    }


def _features(one: Side, other: Side) -> Iterator[DiffRow]:
    yield from _keyed("features", _tensors(one.manifest), _tensors(other.manifest))
    yield from _row("features", "threshold", one.manifest.threshold, other.manifest.threshold)
    yield from _row("features", "task", one.manifest.task, other.manifest.task)
    yield from _row("features", "runtime", one.manifest.runtime, other.manifest.runtime)


def _tensors(manifest: Manifest) -> dict[str, object]:
    found: dict[str, object] = {}
    for way, tensors in (("in", manifest.schema.inputs), ("out", manifest.schema.outputs)):
        for tensor in tensors:
            shape = " x ".join("any" if side < 0 else str(side) for side in tensor.shape)
            found[f"{way} {tensor.name}"] = f"{tensor.datatype} {shape}"
            for place, column in enumerate(tensor.columns):
                low, high = (
                    "open" if side is None else f"{side:g}"
                    for side in (column.minimum, column.maximum)
                )
                found[f"{way} {tensor.name}.{column.name}"] = " ".join(
                    [
                        f"place {place}, {low} to {high}",
                        *([column.unit] if column.unit else []),
                        *(["may be missing"] if column.nullable else []),
                    ]
                )
    return found


def _code(one: Side, other: Side, files: Sequence[tuple[str, str]] | None) -> Iterator[DiffRow]:
    a, b = one.manifest.code, other.manifest.code
    yield from _row("code", "commit", a.commit or None, b.commit or None)
    yield from _row("code", "branch", a.branch or None, b.branch or None)
    yield from _row("code", "changes that are not committed", a.diff or None, b.diff or None)
    note = "" if files is not None or a.commit == b.commit else "the commits are not both here"
    yield from _row("code", "code files", a.tree or None, b.tree or None, note)
    for letter, path in sorted(files or (), key=lambda one: one[1]):
        change = LETTERS.get(letter, "changed")
        yield DiffRow(section="code", what=path, change=change, before="", after="")


def _parameters(one: Side, other: Side) -> Iterator[DiffRow]:
    yield from _row("parameters", "pipeline", one.run.pipeline, other.run.pipeline)
    yield from _row("parameters", "seed", one.run.seed, other.run.seed)
    said = [{name: str(v) for name, v in side.run.parameters.items()} for side in (one, other)]
    yield from _keyed("parameters", said[0], said[1])


def _dependencies(one: Side, other: Side) -> Iterator[DiffRow]:
    yield from _keyed("dependencies", _versions(one.lock), _versions(other.lock))
    a, b = one.run.environment, other.run.environment
    yield from _row("dependencies", "Python", a.python or None, b.python or None)
    yield from _row("dependencies", "platform", a.platform or None, b.platform or None)
    files = [
        {(pin.name, pin.version): pin.hashes for pin in side.lock.pins} for side in (one, other)
    ]
    for name, version in sorted(set(files[0]) & set(files[1])):
        before, after = files[0][name, version], files[1][name, version]
        if before != after:
            words = [f"{len(hashes)} files" for hashes in (before, after)]
            note = "the version is the same, the allowed files are not"
            yield DiffRow(
                section="dependencies",
                what=f"{name} {version}: hashes",
                change="changed",
                before=words[0],
                after=words[1],
                note=note,
            )
    yield from _keyed(
        "dependencies",
        {f"not pinned: {line}": "yes" for line in one.lock.unread},
        {f"not pinned: {line}": "yes" for line in other.lock.unread},
    )


def _versions(lock: Lock) -> dict[str, object]:
    found: dict[str, list[str]] = defaultdict(list)
    for pin in lock.pins:
        found[pin.name].append(pin.version)
    return {name: ", ".join(versions) for name, versions in found.items()}


def _metrics(one: Side, other: Side) -> Iterator[DiffRow]:
    before, after = _results(one), _results(other)
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        said = [None if result is None else measured(result) for result in (a, b)]
        if not any(said):
            continue
        yield from _row("metrics", name, said[0] or None, said[1] or None, apart(a, b))


def _results(side: Side) -> dict[str, Mapping[str, Any]]:
    """Results of all gates by check, and by metric where one check has several."""
    found: dict[str, Mapping[str, Any]] = {}
    for statement in side.statements.values():
        if statement["predicateType"] != GATE:
            continue
        for result in statement["predicate"].get("results", ()):
            if result.get("value") is None:
                continue
            name = str(result["check"])
            if name in found:
                name = f"{name} ({result.get('metric')})"
            found[name] = result
    return found


def measured(result: Mapping[str, Any]) -> str:
    """Value and bounds; numbers travel as text in statements."""
    value, low, high = (_number(result.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return ""
    unit = f" {result['unit']}" if result.get("unit") else ""
    if low is None and high is None:
        return f"{value:.6g}{unit}"
    ends = ["open" if end is None else f"{end:.6g}" for end in (low, high)]
    return f"{value:.6g}{unit} [{ends[0]}, {ends[1]}]"


def apart(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> str:
    """Whether intervals overlap. Said and not judged: the gate compares the two on the same rows."""
    if a is None or b is None:
        return ""
    low, high, other_low, other_high = (
        _number(side.get(key)) for side in (a, b) for key in ("low", "high")
    )
    if low is None or high is None or other_low is None or other_high is None:
        return ""
    if other_low > high or other_high < low:
        return "the intervals lie apart"
    return "the intervals overlap"


def _number(said: Any) -> float | None:
    try:
        return None if said is None else float(said)
    except (TypeError, ValueError):
        return None


def _gates(one: Side, other: Side) -> Iterator[DiffRow]:
    yield from _keyed("gates", _verdicts(one), _verdicts(other))


def _verdicts(side: Side) -> dict[str, object]:
    found: dict[str, object] = {}
    for statement in side.statements.values():
        predicate = statement["predicate"]
        if statement["predicateType"] != GATE or str(predicate["gate"]).endswith("-shown"):
            continue
        asked = "required" if predicate.get("required") else "not required"
        waived = len(predicate.get("waivers", ()))
        more = f", {waived} waived" if waived else ""
        found[str(predicate["gate"])] = f"{predicate['verdict']} ({asked}{more})"
        found["digest of the rules"] = str(predicate.get("policy"))
    return found


def _evidence(one: Side, other: Side) -> Iterator[DiffRow]:
    """By what the statements say; signatures differ each time."""
    said = [
        {
            path.removeprefix("evidence/"): digest_of(statement)
            for path, statement in side.statements.items()
        }
        for side in (one, other)
    ]
    yield from _keyed("evidence", said[0], said[1])
    kept = [
        {
            name: digest
            for name, digest in side.manifest.files.items()
            if name.startswith(("model/", "reference/"))
        }
        for side in (one, other)
    ]
    yield from _keyed("evidence", kept[0], kept[1])


def page(found: ReleaseDiff) -> str:
    """One page without script, every text escaped."""
    names = [
        f"{found.one_model} {found.one_version}",
        f"{found.other_model} {found.other_version}",
    ]
    title = f"From {names[0]} to {names[1]}"
    parts: list[object] = [Html(f"<h1>{h(title)}</h1>"), Html(f"<p>{h(in_words(found))}</p>")]
    if found.findings:
        parts.append(
            Html(
                '<section class="missing"><h2>Does not hold</h2><ul>'
                + "".join(f"<li>{h(one)}</li>" for one in found.findings)
                + "</ul></section>"
            )
        )
    for key, name in SECTIONS.items():
        rows = [row for row in found.rows if row.section == key]
        if rows:
            shown = table(
                ("", "", names[0], names[1], ""),
                (
                    (row.what, row.change, cell(row.before), cell(row.after), row.note)
                    for row in rows
                ),
            )
            parts.append(Html(f"<section><h2>{h(name)}</h2>{shown}</section>"))
    parts.append(Html(f'<p class="muted">{digest(found.one)}<br>{digest(found.other)}</p>'))
    return sheet(title, parts)


def cell(said: str) -> object:
    return digest(digests.short(said)) if digests.is_digest(said) else said


def in_words(found: ReleaseDiff) -> str:
    if not found.rows:
        same = "the same release" if found.one == found.other else "equal but for their names"
        return f"Nothing differs: they are {same}."
    counts: dict[str, int] = defaultdict(int)
    for row in found.rows:
        counts[row.section] += 1
    parts: Iterable[str] = (
        f"{SECTIONS[key].lower()} {counts[key]}" for key in SECTIONS if counts[key]
    )
    return f"{len(found.rows)} differences: {', '.join(parts)}."
