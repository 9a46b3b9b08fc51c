"""Pytest plugin: fixtures for tests of a project's data and models. Nothing is recorded by them.

Loaded by itself where pytest is installed beside Falaj; `falaj test` runs pytest with it. Whatever
costs time is imported when a fixture is asked for.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from falaj.data.datasets import DatasetHandle
    from falaj.facts.models import Schema
    from falaj.facts.project import Project
    from falaj.links.stepcache.cache import FileStepCache
    from falaj.pipelines.service import PipelineOutcome
    from falaj.ports.blobs import Blobs

__all__ = ["PipelineRun", "TrainedModel"]

FILE: Final = "falaj.toml"
STATE: Final = ".falaj"
MESSAGE_LINES: Final = 3
MESSAGE_WIDTH: Final = 300
# Promises about a whole table; a sample of it can neither keep nor break them.
OF_THE_WHOLE: Final = frozenset(("row count", "freshness", "distribution"))


# --- what a test works with ---


class TrainedModel:
    """A trained model, asked as its server would ask it.

    features: names of its inputs, in their order. threshold: the answer is yes above it. Rows are
    a Polars frame, a dict of columns, or a list of dicts; columns beside the features are ignored.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        schema: Schema,
        threshold: float | None,
        *,
        tree: str,
        runtime: str = "onnx",
    ) -> None:
        self.schema = schema
        self.threshold = threshold
        self.tree = tree
        self.features = tuple(column.name for column in schema.inputs[0].columns)
        self._files, self._runtime = files, runtime

    @cached_property
    def _score(self) -> Any:
        from falaj.serving.runtimes.scoring import scorer

        return scorer(self._files, self.schema, runtime=self._runtime)

    def predict(self, rows: Any) -> NDArray[np.float64]:
        """Scores, shape (n,). A missing value is null or NaN."""
        import numpy as np

        frame = as_frame(rows)
        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise AssertionError(f"the rows have no column {missing[0]!r}, which the model takes")
        x = frame.select(self.features).to_numpy().astype(np.float32, order="C")
        found: NDArray[np.float64] = self._score(x)
        return found

    def decide(self, rows: Any) -> NDArray[np.bool_]:
        """The answers: whether each score is above the threshold, 0.5 when the model has none."""
        return self.predict(rows) > (0.5 if self.threshold is None else self.threshold)

    def assert_invariant(self, rows: Any, changed: Any, *, within: float = 0.0) -> None:
        """Invariance: the scores stay when what must not matter is changed.

        changed: the rows as they are after it, a function that makes them, or a dict of columns
        with their new values. within: largest difference of a score that is allowed.
        """
        before, after = self._both(rows, changed)
        moved = abs(after - before)
        worst = int(moved.argmax())
        if not moved[worst] <= within:
            raise AssertionError(
                f"{int((~(moved <= within)).sum())} of {len(moved)} scores move by more than "
                f"{within:g}; most in row {worst}: {before[worst]:.4f} -> {after[worst]:.4f}"
            )

    def assert_rises(self, rows: Any, changed: Any, *, share: float = 1.0) -> None:
        """Directional expectation: the change raises no less than `share` of the scores.

        A score that stays counts as raised: trees are flat between their thresholds.
        """
        self._directed(rows, changed, share, +1)

    def assert_falls(self, rows: Any, changed: Any, *, share: float = 1.0) -> None:
        """The same downwards."""
        self._directed(rows, changed, share, -1)

    def _directed(self, rows: Any, changed: Any, share: float, sign: int) -> None:
        before, after = self._both(rows, changed)
        moved = sign * (after - before)
        kept = float((moved >= 0).mean())
        if not (moved != 0).any():
            raise AssertionError(f"no score of {len(moved)} moves: the model does not look at it")
        if kept < share:
            worst, word = int(moved.argmin()), "rise" if sign > 0 else "fall"
            raise AssertionError(
                f"{kept:.1%} of {len(moved)} scores {word} or stay, expected {share:.1%}; "
                f"worst is row {worst}: {before[worst]:.4f} -> {after[worst]:.4f}"
            )

    def _both(self, rows: Any, changed: Any) -> tuple[Any, Any]:
        import polars as pl

        frame = as_frame(rows)
        if not frame.height:
            raise AssertionError("there are no rows: nothing was tested")
        if callable(changed):
            other = as_frame(changed(frame))
        elif isinstance(changed, Mapping) and set(changed) < set(frame.columns):
            unlike = {n: v for n, v in changed.items() if isinstance(v, str | int | float | None)}
            other = frame.with_columns(
                pl.lit(value).cast(frame.schema[name]).alias(name)
                if name in unlike
                else pl.Series(name, value, dtype=frame.schema[name])
                for name, value in changed.items()
            )
        else:
            other = as_frame(changed)
        if other.height != frame.height:
            raise AssertionError(f"{frame.height} rows became {other.height}: compare row by row")
        return self.predict(frame), self.predict(other)


class PipelineRun:
    """A pipeline that was run on the side.

    metrics: what its steps logged. parameters: as it was run. model: what it made, when it made one.
    """

    def __init__(self, outcome: PipelineOutcome, blobs: Blobs) -> None:
        self.metrics = dict(outcome.metrics)
        self.parameters = dict(outcome.parameters)
        self.steps = {step.step: step for step in outcome.steps}
        self.checks = tuple(check for step in outcome.steps for check in step.checks)
        self._result, self._blobs = outcome.result, blobs

    @cached_property
    def model(self) -> TrainedModel:
        if self._result is None or self._result.kind != "model":
            raise AssertionError("this pipeline makes no falaj.Model")
        from falaj.pipelines.model import describe

        said = describe(self._result, self._blobs)
        files = {
            path.removeprefix("model/"): self._blobs.get(digest)
            for path, digest in self._result.files.items()
            if path.startswith("model/")
        }
        return TrainedModel(files, said.schema, said.threshold, tree="", runtime=said.runtime)

    def held_out(self) -> pl.DataFrame:
        """The rows that the model was not trained on: its features, `y`, columns to group by."""
        import polars as pl

        assert self._result is not None  # noqa: S101 model has made sure
        assert self.model  # noqa: S101 raises where there is none
        return pl.read_parquet(self._blobs.get(self._result.files["evaluation.parquet"]))

    def output(self, step: str, name: str = "result") -> Any:
        """What a step gave: a frame, or a plain value. name: of one of several outputs."""
        if step not in self.steps:
            raise AssertionError(f"there is no step {step!r}; there are {', '.join(self.steps)}")
        found = {one.name: one for one in self.steps[step].outputs}
        if name not in found:
            raise AssertionError(f"step {step} gives {', '.join(found)}, not {name!r}")
        data = self._blobs.get(found[name].digest)
        if found[name].kind == "parquet":
            import polars as pl

            return pl.read_parquet(data)
        return json.loads(data) if found[name].kind == "json" else data


def as_frame(rows: Any) -> pl.DataFrame:
    import polars as pl

    return rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)


# --- fixtures ---


@pytest.fixture(scope="session")
def dataset_sample(falaj_workshop: Workshop) -> Callable[..., pl.DataFrame]:
    """`dataset_sample("flights", rows=1000, seed=None)`: rows as a step would see them.

    The first rows; with a seed the same random rows each time, in their order.
    """
    return falaj_workshop.sample


@pytest.fixture(scope="session")
def contract_check(falaj_workshop: Workshop) -> Callable[..., dict[str, str]]:
    """`contract_check("flights", frame)`: the promises that the frame breaks, name -> why.

    Promises about the whole table (how many rows, how new, which distribution) are left out, unless
    `whole=True`. Only what counts: warnings are not in it.
    """
    return falaj_workshop.broken


@pytest.fixture
def pipeline_run(
    falaj_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PipelineRun]]:
    """`pipeline_run(datasets={"flights": frame}, iterations=10)`: the pipeline on these rows.

    In this process, in a folder that goes away; datasets that are not given are read whole. More
    words: `pipeline="module:function"`, `seed=1`, `only="step"`; all others are parameters of the
    pipeline. A step that fails fails the test, with its place.
    """
    with falaj_workshop.runner(tmp_path_factory.mktemp("falaj")) as run:
        yield run


@pytest.fixture(scope="session")
def trained_model(falaj_workshop: Workshop) -> TrainedModel:
    """The model of the newest run, or of `falaj test --run RUN`."""
    return falaj_workshop.model


@pytest.fixture(scope="session")
def falaj_workshop(pytestconfig: pytest.Config) -> Iterator[Workshop]:
    """The project that the tests belong to."""
    root = project_above(pytestconfig.invocation_params.dir)
    if root is None:
        pytest.fail(f"there is no {FILE} in {pytestconfig.invocation_params.dir} or above", False)
    made = Workshop(root, pytestconfig.getoption("falaj_run"), pytestconfig.stash[USED])
    yield made
    made.close()


class Workshop:
    """Reads a project; its workspace is only read. used: digests of models that were asked."""

    def __init__(self, root: Path, run: str, used: set[str]) -> None:
        self.root = root
        self.used = used
        self._run = run
        self._scratch = TemporaryDirectory(prefix="falaj-testing-")
        self._frames = 0

    def close(self) -> None:
        if "_cache" in vars(self):
            self._cache.close()
        self._scratch.cleanup()

    @cached_property
    def project(self) -> Project:
        from falaj.links.files.project import read_project

        with readable():
            return read_project(self.root / FILE)

    @cached_property
    def _cache(self) -> FileStepCache:
        from falaj.links.stepcache.cache import FileStepCache

        return FileStepCache(Path(self._scratch.name, "cache.db"))

    @cached_property
    def handles(self) -> dict[str, DatasetHandle]:
        from falaj.base.time import now
        from falaj.journeys.train import handles
        from falaj.readers import table_readers

        tables = table_readers(Path(self._scratch.name, "snapshots"))
        with readable():
            return handles(self.project, root=self.root, memo=self._cache, clock=now, tables=tables)

    def handle(self, name: str) -> DatasetHandle:
        if name not in self.handles:
            known = ", ".join(self.handles) or "none"
            raise AssertionError(f"there is no dataset {name!r}; {FILE} declares: {known}")
        return self.handles[name]

    def sample(self, name: str, rows: int = 1000, *, seed: int | None = None) -> pl.DataFrame:
        with readable():
            frame = self.handle(name).scan()
            if seed is None:
                return frame.head(rows).collect()
            whole = frame.collect()
        order = whole.select(at=_numbers(whole.height)).to_series()
        if rows < whole.height:
            order = order.sample(rows, seed=seed).sort()
        return whole[order]

    def given(self, name: str, frame: Any) -> DatasetHandle:
        """A dataset of the project with other rows."""
        from falaj.data.datasets import open_dataset

        known = self.handle(name)
        self._frames += 1
        file = Path(self._scratch.name, f"frame-{self._frames}.parquet")
        as_frame(frame).write_parquet(file)
        return open_dataset(
            name, str(file), root=self.root, contract=known.contract, label=known.label
        )

    def broken(self, name: str, frame: Any, *, whole: bool = False) -> dict[str, str]:
        from falaj.data.service import validate
        from falaj.facts.checks import Verdict

        with readable():
            report = validate(self.given(name, frame), references=self.handles)
        if not report.rows:
            raise AssertionError("there are no rows: nothing was checked")
        return {
            result.check.removeprefix("data."): result.reason
            for result in report.results
            if result.gate == "data"
            and result.verdict in (Verdict.FAIL, Verdict.ERROR)
            and (whole or result.details["kind"] not in OF_THE_WHOLE)
        }

    @contextmanager
    def runner(self, folder: Path) -> Iterator[Callable[..., PipelineRun]]:
        from falaj.links.files.blobs import FileBlobs
        from falaj.links.frames.codecs import codecs
        from falaj.links.python.environment import read_environment
        from falaj.links.stepcache.cache import FileStepCache
        from falaj.pipelines.service import run_pipeline
        from falaj.readers import evidence_readers

        blobs, cache = FileBlobs(folder / "blobs"), FileStepCache(folder / "cache.db")

        def run(
            pipeline: str = "",
            *,
            datasets: Mapping[str, Any] | None = None,
            seed: int = 0,
            only: str = "",
            **parameters: Any,
        ) -> PipelineRun:
            with readable():
                given = {n: self.given(n, frame) for n, frame in (datasets or {}).items()}
                outcome = run_pipeline(
                    pipeline or self.project.model.pipeline,
                    root=self.root,
                    parameters={**self.project.pipelines.parameters, **parameters},
                    seed=seed,
                    datasets={**self.handles, **given},
                    blobs=blobs,
                    cache=cache,
                    codecs=codecs(),
                    lock=read_environment(self.root)[0],
                    only=only,
                    evidence=evidence_readers(),
                )
                if outcome.error is not None:
                    raise outcome.error
            return PipelineRun(outcome, blobs)

        try:
            yield run
        finally:
            cache.close()

    @cached_property
    def _stored(self) -> TrainedModel:
        from falaj.facts.models import ModelVersion
        from falaj.links.sql.store import SqlStore
        from falaj.readers import artifacts

        found: Sequence[ModelVersion] = ()
        if (self.root / STATE / "store.db").exists():
            store = SqlStore.open(self.root / STATE / "store.db")
            where = {"run": self._run} if self._run else {"model": self.project.model.name}
            found = store.find(ModelVersion, limit=1, **where)
            store.close()
        if not found:
            what = f"run {self._run} made no model" if self._run else "no run has made a model yet"
            pytest.fail(f"{what}; make one: falaj run", pytrace=False)
        model = found[0]
        blobs, _ = artifacts(self.project, self.root / STATE)
        files = {name: blobs.get(digest) for name, digest in model.files.items()}
        return TrainedModel(
            files, model.schema, model.threshold, tree=model.tree, runtime=model.runtime
        )

    @property
    def model(self) -> TrainedModel:
        model = self._stored
        self.used.add(model.tree)
        return model


def _numbers(count: int) -> pl.Series:
    import polars as pl

    return pl.Series(range(count), dtype=pl.UInt32)


@contextmanager
def readable() -> Iterator[None]:
    """An error of Falaj as a failed test in words: its place and its cure, no frames of ours."""
    from falaj.base.errors import FalajError

    try:
        yield
    except FalajError as error:
        first = error.problems[0]
        lines = [f"{error.code}: {first.message}"]
        lines += [f"at {first.place}"] if first.place else []
        lines += [word for word in (*first.why.splitlines()[:5], first.fix) if word]
        pytest.fail("\n".join(lines), pytrace=False)


# --- the plugin itself ---

USED: Final = pytest.StashKey[set[str]]()
MODEL: Final = "falaj.model"


def project_above(start: Path) -> Path | None:
    return next((f for f in (start, *start.parents) if (f / FILE).is_file()), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("falaj", "Falaj: tests of data and models")
    group.addoption(
        "--falaj-run", default="", metavar="RUN", help="the model that tests ask is of this run"
    )
    group.addoption("--falaj-report", default="", metavar="FILE", help="write the outcomes as JSON")
    group.addoption(
        "--falaj-hide-values",
        action="store_true",
        help="leave messages out of the outcomes: they may hold values of rows",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The project's modules can be imported by its tests, as by its pipeline."""
    config.stash[USED] = set()
    root = project_above(config.invocation_params.dir)
    if root is not None:
        roots = [str(folder) for folder in (root / "src", root) if folder.is_dir()]
        sys.path[:0] = [folder for folder in roots if folder not in sys.path]
    file = config.getoption("falaj_report")
    if file and not hasattr(config, "workerinput"):
        recorder = Recorder(Path(file), hide=config.getoption("falaj_hide_values"))
        config.pluginmanager.register(recorder, "falaj-recorder")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Which models were asked travels with the report of a test, also between processes."""
    used: set[str] = item.config.stash[USED]
    item.user_properties += [(MODEL, tree) for tree in sorted(used)]


class Recorder:
    """Writes down how each test ended. hide: of a failure only its kind and its place."""

    def __init__(self, file: Path, *, hide: bool) -> None:
        self._file, self._hide = file, hide
        self._tests: dict[str, dict[str, Any]] = {}
        self._models: set[str] = set()
        self._begun = time.monotonic()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tests[report.nodeid or "collection"] = {
                "name": report.nodeid or "collection",
                "outcome": "error",
                "message": self._message(report),
            }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = self._tests.setdefault(
            report.nodeid, {"name": report.nodeid, "outcome": "passed", "seconds": 0.0}
        )
        said["seconds"] = round(said["seconds"] + report.duration, 4)
        self._models |= {str(value) for name, value in report.user_properties if name == MODEL}
        expected = hasattr(report, "wasxfail")
        if report.failed:
            said["outcome"] = "failed" if report.when == "call" else "error"
            said["message"] = self._message(report)
        elif report.skipped:
            said["outcome"] = "xfailed" if expected else "skipped"
            said["message"] = (
                "" if self._hide else cut(str(getattr(report, "wasxfail", "")) or why(report))
            )
        elif expected and report.when == "call":
            said["outcome"] = "xpassed"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:  # noqa: ARG002 pytest's signature
        found = {
            "tests": list(self._tests.values()),
            "seconds": time.monotonic() - self._begun,
            "models": sorted(self._models),
            "version": pytest.__version__,
        }
        self._file.write_text(json.dumps(found), encoding="utf-8")

    def _message(self, report: pytest.TestReport | pytest.CollectReport) -> str:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = str(crash.message if crash is not None else report.longrepr)
        place = f"{Path(crash.path).name}:{crash.lineno}" if crash is not None else ""
        if self._hide:
            kind = text.partition(":")[0].partition("\n")[0]
            text = kind if kind.replace(".", "").isidentifier() else "it failed"
        elif crash is None:
            text = "\n".join(text.strip().splitlines()[-MESSAGE_LINES:])
        return f"{cut(text)} ({place})" if place else cut(text)


def why(report: pytest.TestReport) -> str:
    found = report.longrepr
    return str(found[2] if isinstance(found, tuple) else "")


def cut(text: str) -> str:
    """At most three lines that say something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][:MESSAGE_LINES]
    return "\n".join(
        line if len(line) <= MESSAGE_WIDTH else line[: MESSAGE_WIDTH - 3] + "..." for line in lines
    )
