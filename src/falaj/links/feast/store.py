"""Feast as a feature store, in a child process: importing it takes seconds and half a gigabyte."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

from falaj.base import frames
from falaj.base.childlines import ChildDied, ChildLate, ChildLines
from falaj.base.errors import FalajError
from falaj.ports.features import FeatureAnswer, FeatureService

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FeastStore"]

TIME: Final = "event_timestamp"
ROW: Final = "__falaj_label"
QUIET: Final = {
    "FEAST_USAGE": "False",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}


class FeastStore:
    """The port FeatureStore over a feature repository: a folder with feature_store.yaml.

    full_names: columns are called view__feature instead of feature. patience: how long starting
    Feast and one historical retrieval may take. The child is started on first use.
    """

    def __init__(
        self,
        repo: Path,
        *,
        full_names: bool = False,
        patience: timedelta = timedelta(hours=1),
    ) -> None:
        self._repo = repo
        self._full = full_names
        self._patience = patience.total_seconds()
        self._child: ChildLines | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._starting = Lock()
        self._keys: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def describe(self, service: str) -> FeatureService:
        return _service(self._ask({"do": "describe", "service": service}, self._patience))

    def historical(
        self, service: str, labels: pl.DataFrame, *, at: str, expect: str = ""
    ) -> tuple[pl.DataFrame, FeatureService]:
        import polars as pl

        said = self.describe(service)
        _must_fit(said, labels, at)
        keys = list(said.entities)
        asked = (
            labels.lazy()
            .select(*keys, _in_utc(labels, at).alias(TIME))
            .with_row_index(ROW)
            # Nothing is known about what has no key, or at no time; pandas would join null to null.
            .drop_nulls([*keys, TIME])
            .collect()
        )
        folder = Path(self._place())
        given, found = folder / "labels.parquet", folder / "features.parquet"
        asked.drop(ROW).write_parquet(given)
        question = {"do": "historical", "labels": str(given), "out": str(found)}
        try:
            answer = self._ask({**question, "service": service, "expect": expect}, self._patience)
            features = pl.read_parquet(found).cast(
                {name: frames.dtype_of(kind) for name, kind in said.columns.items()}
            )
        finally:
            given.unlink(missing_ok=True)
            found.unlink(missing_ok=True)
        known = features.fill_nan(None).with_columns(asked[ROW])
        whole = labels.with_row_index(ROW).join(known, on=ROW, how="left", maintain_order="left")
        return whole.drop(ROW), _service(answer)

    def online(
        self,
        service: str,
        entities: Sequence[Mapping[str, Any]],
        *,
        timeout: timedelta,
        expect: str = "",
    ) -> FeatureAnswer:
        end = monotonic() + timeout.total_seconds()
        if service not in self._keys:
            described = self._ask({"do": "describe", "service": service}, end - monotonic())
            self._keys[service] = tuple(described["entities"])
        keys = self._keys[service]
        rows = [{key: row[key] for key in keys if key in row} for row in entities]
        question = {"do": "online", "service": service, "rows": rows, "expect": expect}
        said = self._ask(question, end - monotonic())
        self._keys[service] = tuple(said["entities"])
        times = {column for column, kind in said["columns"].items() if kind == "Datetime"}
        return FeatureAnswer(
            service=_service(said),
            now=datetime.fromtimestamp(said["now"], UTC),
            values={
                name: tuple(map(_time, values)) if name in times else tuple(values)
                for name, values in said["values"].items()
            },
            at={name: tuple(map(_time, stamps)) for name, stamps in said["at"].items()},
        )

    def start(self) -> None:
        """Have Feast imported and the repository opened, so that the first answer is quick too."""
        self._ask({"do": "describe", "service": ""}, self._patience, told=False)

    def _ask(self, question: dict[str, Any], within: float, *, told: bool = True) -> dict[str, Any]:
        child = self._started()
        try:
            answer = child.ask({"full": self._full, "expect": "", **question}, within=within)
        except ChildLate:
            raise FalajError(
                "data.features-late",
                f"feature service {question['service']}: no answer in time",
                why="Feast is starting, busy, or its store does not answer",
                fix="start the store before the first question, or give it more time",
            ) from None
        except ChildDied as error:
            self.close()
            raise _failed(
                self._repo, question["service"], f"its process is gone: {error}"
            ) from None
        if "error" in answer and told:
            raise _refused(self._repo, question["service"], answer["error"])
        found: dict[str, Any] = answer.get("ok", {})
        return found

    def _started(self) -> ChildLines:
        with self._starting:
            if self._child is None or not self._child.is_alive:
                self.close()
                _must_be_there(self._repo)
                argv = (
                    sys.executable,
                    "-P",
                    "-m",
                    "falaj.links.feast.child",
                    str(self._repo.resolve()),
                )
                self._child = ChildLines(
                    argv,
                    cwd=self._repo,  # addresses of files in feature_store.yaml begin there
                    environment={**os.environ, **QUIET},
                    log=Path(self._place(), "log"),
                )
            return self._child

    def _place(self) -> str:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="falaj-feast-")
        return self._folder.name


def _time(stamp: float | None) -> datetime | None:
    return None if stamp is None else datetime.fromtimestamp(stamp, UTC)


def _in_utc(labels: pl.DataFrame, at: str) -> pl.Expr:
    """The time of the label; without a zone it is UTC, as Feast reads it."""
    import polars as pl

    column, dtype = pl.col(at), labels.schema[at]
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if getattr(dtype, "time_zone", None) is None:
        return column.dt.replace_time_zone("UTC")
    return column.dt.convert_time_zone("UTC")


def _must_fit(said: FeatureService, labels: pl.DataFrame, at: str) -> None:
    import polars as pl

    wrong = [
        key
        for key, kind in said.entities.items()
        if key not in labels.columns
        or (kind.startswith("Int") and not labels.schema[key].is_integer())
        or (kind == "String" and labels.schema[key] != pl.String)
    ]
    if wrong:
        raise _no_entity(said.name, wrong, said.entities)
    if at not in labels.columns or labels.schema[at].base_type() not in {pl.Datetime, pl.Date}:
        raise FalajError(
            "data.no-column",
            f"the labels have no column {at!r} that is a time",
            why=f"there are: {', '.join(labels.columns)}",
            fix="say which column is the time of the label: ...&at=<column>",
        )
    twice = [name for name in said.columns if name in labels.columns]
    if twice:
        raise FalajError(
            "data.column-twice",
            f"column {twice[0]!r} is in the labels and in feature service {said.name}",
            why="one would hide the other, and a label is no feature",
            fix="rename it in one of them, or ask for full names: ...&names=full",
        )


def _must_be_there(repo: Path) -> None:
    if find_spec("feast") is None:
        raise FalajError(
            "data.extra-missing",
            "features of Feast need the extra falaj[feast]",
            fix="pip install 'falaj[feast]'",
        )
    if not (repo / "feature_store.yaml").is_file():
        raise FalajError(
            "data.features-repo",
            f"{repo.name} is no feature repository",
            why="there is no feature_store.yaml in it",
            fix="name the folder of the repository, relative to falaj.toml; `feast apply` fills it",
        )


def _service(said: Mapping[str, Any]) -> FeatureService:
    return FeatureService(
        name=said["name"],
        entities=said["entities"],
        columns=said["columns"],
        views=said["views"],
        max_age={view: timedelta(seconds=age) for view, age in said["max_age"].items()},
        digest=said["digest"],
        registry=said["registry"],
        engine=said["engine"],
    )


def _no_entity(service: str, names: Sequence[str], known: Mapping[str, str]) -> FalajError:
    told = ", ".join(f"{key} ({kind or 'any type'})" for key, kind in known.items())
    return FalajError(
        "data.features-entity",
        f"feature service {service}: entity {', '.join(names)} is absent or of another type",
        why=f"it is looked up by: {told or 'nothing'}",
        fix="give the rows these columns, of these types",
    )


def _failed(repo: Path, service: str, why: str) -> FalajError:
    return FalajError(
        "data.features-failed",
        f"feature service {service} of {repo.name} cannot be read",
        why=why,
        fix=f"look whether Feast itself can: feast --chdir {repo.name} feature-services list",
    )


def _refused(repo: Path, service: str, said: Mapping[str, Any]) -> FalajError:
    """The words for a refusal of the child."""
    match said["kind"]:
        case "repo":
            return FalajError(
                "data.features-repo",
                f"feature repository {repo.name} cannot be opened ({said['error']})",
                fix="mend feature_store.yaml, then `feast apply`",
            )
        case "service":
            return FalajError(
                "data.features-service",
                f"there is no feature service {service!r} in {repo.name}",
                why=f"known: {', '.join(said['known']) or 'none'}",
                fix="name one of them, or define it and run `feast apply`",
            )
        case "entity":
            return _no_entity(service, said["names"], said["known"])
        case "changed":
            return FalajError(
                "data.features-changed",
                f"feature service {service} is another one than was asked for",
                why=f"its digest is {said['now']}, expected {said['expected']}",
                fix="train again on what it is now, or bring its definitions back and apply them",
            )
        case "on-demand":
            return FalajError(
                "data.features-kind",
                f"feature service {service}: view {said['view']!r} is computed by code",
                why="code from a registry is not run, and is not the same before and after",
                fix="compute it in a step and in the model, or store its values in a view",
            )
        case "type" | "mistyped":
            return FalajError(
                "data.features-kind",
                f"feature service {service}: column {said['name']!r} is no {said['type']} to keep",
                why="a value must be the same in training and serving, bit by bit",
                fix="declare whole numbers, floats, texts, booleans, times, or lists of them",
            )
        case "twice":
            return FalajError(
                "data.column-twice",
                f"feature service {service}: two views have a feature {said['name']!r}",
                fix="ask for full names: ...&names=full",
            )
        case "lossy":
            return FalajError(
                "data.features-kind",
                f"feature service {service}: column {said['name']!r} holds numbers above 2**53",
                why="pandas, which Feast joins with, rounds them where a value is absent",
                fix="store it as a text",
            )
        case "online":
            return FalajError(
                "data.features-online",
                f"feature service {service}: there is no online store to ask",
                why=str(said["why"]),
                fix="feast apply, then feast materialize-incremental <time>",
            )
        case _:
            return _failed(repo, service, f"Feast failed with {said['error']}")
