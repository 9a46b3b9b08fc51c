"""What people ask of runs that are over: which ones, what differs, what was drawn and printed."""

from __future__ import annotations

import base64
from typing import Any, Final

from msgspec.structs import replace

from falaj.base.errors import NotFound
from falaj.base.filters import parse, parse_order
from falaj.base.points import Series
from falaj.facts.runs import Image, KeptFile, Plot, Run, RunStatus, StepRun
from falaj.facts.wire import decode
from falaj.pipelines.rules import differences
from falaj.ports.blobs import BlobMissing, Blobs, SizedBlobs
from falaj.ports.ground import Ground

__all__ = ["diff", "file", "files", "find", "log", "pictures", "plots", "points", "shown"]

MOST: Final = 16 * 1024 * 1024  # bytes of pictures of one run
DRAWN: Final = 500  # points of a line
MEDIA: Final = {"png": "image/png", "svg": "image/svg+xml"}


def find(ground: Ground, where: str, order: str, limit: int) -> list[Run]:
    """Runs that meet a filter. Raises FalajError for one that cannot be read."""
    asked, way = parse(where), parse_order(order)
    if ground.runs is None:
        return []
    found = ground.runs.search(asked, way, limit=limit)
    return [ground.store.get(Run, run).fact for run in found]


def shown(ground: Ground, run: Run) -> Run:
    """A run that goes on, or was interrupted, with the metrics that its steps have told."""
    if run.status not in (RunStatus.RUNNING, RunStatus.INTERRUPTED) or ground.runs is None:
        return run
    return replace(run, metrics={**ground.runs.last(run.id), **run.metrics})


def diff(one: Run, other: Run) -> list[dict[str, Any]]:
    """Every part in which two runs differ: of the runs themselves, then of each step."""
    rows: list[dict[str, Any]] = []

    def say(where: str, what: str, before: Any, after: Any) -> None:
        if before != after:
            rows.append({"where": where, "what": what, "before": before, "after": after})

    for name in sorted({**one.parameters, **other.parameters}):
        say("parameters", name, one.parameters.get(name), other.parameters.get(name))
    for name in ("pipeline", "seed", "status"):
        say("run", name, getattr(one, name), getattr(other, name))
    say("run", "commit", one.code.commit, other.code.commit)
    say("run", "changes", one.code.diff, other.code.diff)
    say("run", "lock", one.environment.lock, other.environment.lock)
    data = [{d.dataset: d.content for d in run.datasets} for run in (one, other)]
    for name in sorted({**data[0], **data[1]}):
        say("datasets", name, data[0].get(name), data[1].get(name))
    for name in sorted({**one.metrics, **other.metrics}):
        say("metrics", name, one.metrics.get(name), other.metrics.get(name))
    steps = [{step.step: step for step in run.steps} for run in (one, other)]
    for name in {**steps[0], **steps[1]}:
        if name not in steps[0] or name not in steps[1]:
            say("steps", name, name in steps[0], name in steps[1])
        else:
            parts = [{"parts": each[name].parts} for each in steps]
            words = differences(*parts) if all(part["parts"] for part in parts) else []
            where = f"step {name}"
            rows += [{"where": where, "what": w, "before": "", "after": ""} for w in words]
    return rows


def plots(ground: Ground, run: Run) -> list[Plot]:
    """What steps plotted, and a line for each metric that was logged with steps."""
    digests = [digest for step in run.steps for digest in step.plots.values()]
    lines = ground.runs.names(run.id) if ground.runs is not None else ()
    return [
        *(decode(Plot, ground.blobs.get(digest)) for digest in digests),
        *(line(name, points(ground, run, name)) for name in lines),
    ]


def line(name: str, series: Series) -> Plot:
    """At most about 500 points of it: no eye sees more."""
    some = [*range(0, len(series.values), len(series.values) // DRAWN + 1)]
    if some[-1] != len(series.values) - 1:
        some.append(len(series.values) - 1)
    columns: dict[str, tuple[float | str, ...]] = {
        "step": tuple(float(series.steps[i]) for i in some),
        name: tuple(float(series.values[i]) for i in some),
    }
    return Plot(name=name, x="step", y=name, columns=columns)


def pictures(ground: Ground, run: Run) -> list[Image]:
    """What steps drew: their answers and the files that they kept, at most 16 MiB of them."""
    found: list[Image] = []
    room = MOST
    for step in run.steps:
        named = dict(step.files)
        for output in step.outputs:
            if output.kind == "picture":
                named |= {n: d for n, d in output.files.items() if d == output.digest}
        for name, digest in named.items():
            media = MEDIA.get(name.rpartition(".")[2].lower())
            if media is None or not ground.blobs.has(digest):
                continue
            data = ground.blobs.get(digest)
            room -= len(data)
            if room < 0:
                return found
            text = base64.b64encode(data).decode()
            found.append(Image(step=step.step, name=name, media=media, data=text))
    return found


def files(ground: Ground, run: Run) -> list[KeptFile]:
    """What steps kept beside their answers, by step and name."""
    return [
        KeptFile(step=step.step, name=name, digest=digest, size=size_of(ground.blobs, digest))
        for step in run.steps
        for name, digest in sorted(step.files.items())
    ]


def size_of(blobs: Blobs, digest: str) -> int:
    try:
        return blobs.size(digest) if isinstance(blobs, SizedBlobs) else len(blobs.get(digest))
    except BlobMissing:
        return 0


def file(ground: Ground, run: Run, step: str, name: str) -> bytes:
    """Bytes of a kept file."""
    known = step_of(run, step).files
    if name not in known:
        some = sorted(known)[:10]
        raise NotFound(
            "runs.no-file",
            f"step {step} of run {run.id} has kept no file {name!r}",
            why=f"it has kept: {', '.join(some) or 'none'}{', ..' if len(known) > 10 else ''}",
            fix="name one of them: `falaj runs show` lists them",
        )
    try:
        return ground.blobs.get(known[name])
    except BlobMissing:
        raise NotFound(
            "runs.file-gone",
            f"the file {name!r} of step {step} of run {run.id} is no longer kept",
            fix="run the pipeline again from that run: `falaj run --from RUN`",
        ) from None


def points(ground: Ground, run: Run, name: str) -> Series:
    if ground.runs is None:
        return Series(name)
    return ground.runs.series(run.id, name)


def log(ground: Ground, run: Run, step: str, attempt: int = 0) -> str:
    """What a step printed. attempt: counted from 1; 0 is the last."""
    found = step_of(run, step)
    digest = found.log
    if attempt:
        tries = {one.number: one.log for one in found.attempts}
        if attempt not in tries:
            raise NotFound(
                "runs.no-attempt",
                f"step {step} of run {run.id} has no attempt {attempt}",
                why=f"there were {len(tries)}; a cached step shows the log of its origin",
                fix="leave --attempt out",
            )
        digest = tries[attempt]
    if not digest:
        return ""
    try:
        return ground.blobs.get(digest).decode(errors="replace")
    except BlobMissing:
        raise NotFound(
            "runs.log-gone",
            f"the log of step {step} of run {run.id} is no longer kept",
            fix="runs that are younger than the keeping time have their logs",
        ) from None


def step_of(run: Run, step: str) -> StepRun:
    for found in run.steps:
        if found.step == step:
            return found
    raise NotFound(
        "runs.no-step",
        f"run {run.id} has no step {step!r}",
        why=f"its steps are: {', '.join(found.step for found in run.steps) or 'none'}",
        fix="name one of them",
    )
