"""What the calls of an MLflow client say, taken into the record of the running step. No network.

The shapes are those of MLflow 3.17.2's REST API. Names, texts and files come from the step, which
is code of others: all is bounded, and a file's name is a plain relative path or refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from falaj.base.paths import trouble
from falaj.base.points import Series
from falaj.pipelines.context import Running

__all__ = ["EXPERIMENT", "MOST_FILE", "Record", "Refused"]

EXPERIMENT: Final = "1"  # the answer to every name: a step has one place for what it says
VERSION: Final = re.compile(r"api/\d\.\d/(mlflow|mlflow-artifacts)/(.*)")
LONGEST_NAME: Final = 250
LONGEST_PARAM: Final = 6000
LONGEST_TAG: Final = 8000
MOST_NAMES: Final = 20_000  # params, tags and metrics of a step, each
MOST_POINTS: Final = 5_000_000
MOST_RUNS: Final = 1000
MOST_FILES: Final = 5000
MOST_FILE: Final = 256 * 1024 * 1024
MOST_BYTES: Final = 512 * 1024 * 1024  # of all files of a step, which wait in memory
# Said by the client alone: who and where, which the run's own record says better.
UNSAID: Final = ("mlflow.user", "mlflow.source.", "mlflow.parentRunId", "falaj.")
NO_REGISTRY: Final = (
    "a step has no model registry: return a falaj.Model from the step, and make a release of it "
    "with `falaj release create`"
)
OVER: Final = "the step of this token is over; what it says after its end belongs to no run"
HERE: Final = (
    "inside a step, params, metrics, tags, files and models that the client logs are kept in the "
    "run's record; other things need a tracking server of your own (mlflow.set_tracking_uri)"
)


class Refused(Exception):
    """An answer other than 200, in the words that an MLflow client shows."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def wrong(message: str) -> Refused:
    return Refused(400, "INVALID_PARAMETER_VALUE", message)


def unknown(message: str) -> Refused:
    return Refused(404, "RESOURCE_DOES_NOT_EXIST", message)


def is_line(line: Series) -> bool:
    """One value at step 0 is what `log_metric` without a step says: no line."""
    return len(line.steps) > 1 or line.steps[0] != 0


@dataclass
class Sub:
    """The step's own run (prefix is empty), or one that the client made beside it."""

    id: str
    prefix: str
    name: str
    started: int
    status: str = "RUNNING"
    ended: int = 0
    last: dict[str, tuple[int, int, float]] = field(default_factory=dict)  # step, ms, value
    points: dict[str, Series] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        return {
            "run_id": self.id,
            "run_uuid": self.id,
            "run_name": self.name,
            "experiment_id": EXPERIMENT,
            "user_id": "",
            "status": self.status,
            "start_time": self.started,
            **({"end_time": self.ended} if self.ended else {}),
            "artifact_uri": f"mlflow-artifacts:/{self.id}",
            "lifecycle_stage": "active",
        }

    def whole(self) -> dict[str, Any]:
        metrics = [
            {"key": key, "value": value, "timestamp": at, "step": step}
            for key, (step, at, value) in self.last.items()
        ]
        data = {"metrics": metrics, "params": listed(self.params), "tags": listed(self.tags)}
        return {"info": self.info(), "data": data, "inputs": {}}


@dataclass
class Logged:
    """A model that the client logs: a folder of files, never taken as a model version."""

    id: str
    name: str
    folder: str
    run: str
    kind: str
    started: int
    status: str = "LOGGED_MODEL_PENDING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def whole(self) -> dict[str, Any]:
        info = {
            "model_id": self.id,
            "experiment_id": EXPERIMENT,
            "name": self.name,
            "creation_timestamp_ms": self.started,
            "last_updated_timestamp_ms": self.started,
            "artifact_uri": f"mlflow-artifacts:/{self.id}",
            "status": self.status,
            "model_type": self.kind,
            "source_run_id": self.run,
            "tags": listed(self.tags),
        }
        return {"info": info, "data": {"params": listed(self.params), "metrics": []}}


class Record:
    """One step's calls, from any thread or child process, into its Running.

    run: the id under which the client knows the step's own run. After `close` all is refused.
    """

    def __init__(
        self, running: Running, run: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.run = run
        self._running, self._clock = running, clock
        self._lock = threading.Lock()
        self._main = Sub(run, "", running.step, self._now())
        running.beside.append(self.lines)
        self._subs = {run: self._main}
        self._models: dict[str, Logged] = {}
        self._experiment = "falaj"
        self._points = self._bytes = 0
        self._odd: dict[str, tuple[int, str]] = {}
        self._closed = False
        self._acts = self._routes()
        self.calls = 0

    def answer(
        self, method: str, path: str, asked: Mapping[str, str], said: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Carry out one call. path: behind the host, without its query. Raises Refused."""
        found = VERSION.fullmatch(path.lstrip("/"))
        if found is None:
            raise unknown(f"there is nothing at {path[:200]!r}: {HERE}")
        kind, rest = found.groups()
        with self._open():
            if kind == "mlflow-artifacts":
                if method == "GET" and rest == "artifacts":
                    return self._list(asked.get("path", ""))
                raise unknown(f"{method} {rest[:100]!r} of files is not kept here: {HERE}")
            if rest.startswith(("registered-models", "model-versions")):
                raise unknown(NO_REGISTRY)
            head, _, tail = rest.partition("/")
            if head == "logged-models":
                return self._logged(method, tail, said)
            act = self._acts.get((method, rest))
            if act is None:
                raise unknown(f"there is no {method} {rest[:100]!r} here: {HERE}")
            return act(said if method != "GET" else asked)

    def put(self, path: str, data: bytes) -> None:
        """Keep a file. path: `<run or model>/<name>`. Raises Refused."""
        with self._open():
            name = self._file(path)
            files = self._running.files
            size = self._bytes - len(files.get(name, b"")) + len(data)
            if len(data) > MOST_FILE or size > MOST_BYTES:
                raise too_large("the files of a step")
            if name not in files and len(files) >= MOST_FILES:
                raise wrong(f"a step keeps at most {MOST_FILES} files")
            files[name] = data
            self._bytes = size

    def get(self, path: str) -> bytes:
        """A file that was put. Raises Refused."""
        with self._open():
            name = self._file(path)
            if name not in self._running.files:
                raise unknown(f"the step has kept no file {path[:200]!r}")
            return self._running.files[name]

    def close(self) -> None:
        """Hand over what is known only now: lines, and which values were no numbers."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(ValueError):
                self._running.beside.remove(self.lines)
            for sub in self._subs.values():
                for line in sub.points.values():
                    if is_line(line):
                        self._running.lines.setdefault(line.name, Series(line.name)).extend(line)
                if sub.inputs:
                    text = json.dumps(sub.inputs, indent=1, sort_keys=True)
                    self._running.files[f"mlflow/{sub.prefix}inputs.json"] = text.encode()
            for name, (count, first) in self._odd.items():
                more = f", and {count - 1} more" if count > 1 else ""
                self._running.tags[f"falaj.not-a-number.{name}"] = first + more

    def lines(self) -> list[Series]:
        """As they are now, for whoever looks while the step runs."""
        with self._lock:
            found = [line for sub in self._subs.values() for line in sub.points.values()]
            return [
                Series(one.name, one.steps[:], one.times[:], one.values[:])
                for one in found
                if is_line(one)
            ]

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise Refused(401, "UNAUTHENTICATED", OVER)
            self.calls += 1
            yield

    def _routes(self) -> dict[tuple[str, str], Callable[[Mapping[str, Any]], dict[str, Any]]]:
        return {
            ("POST", "experiments/create"): self._named,
            ("GET", "experiments/get"): self._one,
            ("GET", "experiments/get-by-name"): self._named,
            ("POST", "experiments/search"): self._all,
            ("POST", "experiments/set-experiment-tag"): self._ignored,
            ("POST", "runs/create"): self._create,
            ("GET", "runs/get"): self._read,
            ("POST", "runs/update"): self._update,
            ("POST", "runs/log-metric"): self._log_metric,
            ("POST", "runs/log-parameter"): self._log_param,
            ("POST", "runs/log-batch"): self._log_batch,
            ("POST", "runs/set-tag"): self._set_tag,
            ("POST", "runs/delete-tag"): self._delete_tag,
            ("POST", "runs/log-inputs"): self._inputs,
            ("POST", "runs/log-model"): self._nothing,
            ("POST", "runs/outputs"): self._nothing,
            ("GET", "metrics/get-history"): self._history,
        }

    def _now(self) -> int:
        return int(self._clock() * 1000)

    # Runs.

    def _sub(self, said: Mapping[str, Any]) -> Sub:
        wanted = said.get("run_id") or said.get("run_uuid")
        found = self._subs.get(wanted) if isinstance(wanted, str) else None
        if found is None:
            raise unknown(
                f"this step has no run {str(wanted)[:100]!r}; runs of other steps are theirs"
            )
        return found

    def _create(self, said: Mapping[str, Any]) -> dict[str, Any]:
        if len(self._subs) > MOST_RUNS:
            raise wrong(f"a step keeps at most {MOST_RUNS} runs of its own")
        tags = pairs_of(said.get("tags", ()), LONGEST_TAG)
        number = len(self._subs)
        name = said.get("run_name") or tags.get("mlflow.runName") or f"child/{number}"
        sub = Sub(secrets.token_hex(16), f"child/{number}/", text(name, LONGEST_TAG), self._now())
        self._subs[sub.id] = sub
        self._tag(sub, tags)
        return {"run": sub.whole()}

    def _read(self, said: Mapping[str, Any]) -> dict[str, Any]:
        return {"run": self._sub(said).whole()}

    def _update(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The status is the client's own word: how the step ends is what the run records."""
        sub = self._sub(said)
        sub.status = text(said.get("status") or sub.status, 40)
        sub.ended = whole(said.get("end_time", sub.ended))
        if said.get("run_name"):
            sub.name = text(said["run_name"], LONGEST_TAG)
            self._tag(sub, {"mlflow.runName": sub.name})
        return {"run_info": sub.info()}

    # What is said of a run.

    def _log_metric(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self._measure(self._sub(said), [metric_of(said)])
        return {}

    def _log_param(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self._set(self._sub(said), pairs_of([said], LONGEST_PARAM))
        return {}

    def _set_tag(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self._tag(self._sub(said), pairs_of([said], LONGEST_TAG))
        return {}

    def _delete_tag(self, said: Mapping[str, Any]) -> dict[str, Any]:
        sub, key = self._sub(said), text(said.get("key"), LONGEST_NAME)
        sub.tags.pop(key, None)
        self._running.tags.pop(sub.prefix + key, None)
        return {}

    def _log_batch(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """All of it or nothing: what is wrong is found before anything is kept."""
        sub = self._sub(said)
        metrics = [metric_of(one) for one in objects(said.get("metrics", ()))]
        params = pairs_of(said.get("params", ()), LONGEST_PARAM)
        tags = pairs_of(said.get("tags", ()), LONGEST_TAG)
        self._set(sub, params)
        self._measure(sub, metrics)
        self._tag(sub, tags)
        return {}

    def _set(self, sub: Sub, params: Mapping[str, str]) -> None:
        for key, value in params.items():
            known = sub.params.get(key)
            if known is not None and known != value:
                raise wrong(
                    f"param {key!r} is {known[:100]!r} already and cannot become {value[:100]!r}; "
                    "log it under another name, or in a run of its own"
                )
        kept = self._running.params
        room(len(kept) + len(params), "params")
        sub.params.update(params)
        kept.update({sub.prefix + key: value for key, value in params.items()})

    def _tag(self, sub: Sub, tags: Mapping[str, str]) -> None:
        kept = self._running.tags
        room(len(kept) + len(tags), "tags")
        sub.tags.update(tags)
        said = {k: v for k, v in tags.items() if not k.startswith(UNSAID)}
        kept.update({sub.prefix + key: value for key, value in said.items()})

    def _measure(self, sub: Sub, metrics: list[tuple[str, float, int, int]]) -> None:
        """The run's metric is that of the last step, however late an earlier one arrives."""
        if self._points + len(metrics) > MOST_POINTS:
            raise wrong(f"a step keeps at most {MOST_POINTS} points")
        room(len(self._running.metrics) + len({key for key, *_ in metrics}), "metrics")
        for key, value, at, step in metrics:
            name = sub.prefix + key
            if not math.isfinite(value) or abs(value) >= sys.float_info.max:
                # Instead of infinity, clients and servers of MLflow write the largest number.
                sign = "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
                count, first = self._odd.get(name, (0, f"{sign} at step {step}"))
                self._odd[name] = (count + 1, first)
                continue
            line = sub.points.get(key)
            if line is None:
                line = sub.points[key] = Series(name)
            line.add(step, at / 1000, value)
            self._points += 1
            if key not in sub.last or (step, at) >= sub.last[key][:2]:
                sub.last[key] = (step, at, value)
                self._running.metrics[name] = value

    def _history(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        key = asked.get("metric_key", "")
        line = self._sub(asked).points.get(key, Series(key))
        rows = zip(line.steps, line.times, line.values, strict=True)
        return {
            "metrics": [
                {"key": key, "value": value, "timestamp": int(at * 1000), "step": step}
                for step, at, value in rows
            ]
        }

    def _inputs(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What the client calls a dataset; the versions that a step is bound to are the run's own."""
        sub = self._sub(said)
        for one in objects(said.get("datasets", ())):
            of = one.get("dataset")
            if not isinstance(of, dict) or len(sub.inputs) >= MOST_RUNS:
                raise wrong(f"datasets: expected at most {MOST_RUNS} objects with a dataset each")
            names = ("name", "digest", "source_type", "schema", "profile")
            row = {name: text(of[name], 1 << 20) for name in names if of.get(name)}
            if row not in sub.inputs:
                sub.inputs.append(row)
        return {}

    def _nothing(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self._sub(said)
        return {}

    # Experiments: one, under every name.

    def _named(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self._experiment = text(said.get("experiment_name") or said.get("name"), LONGEST_NAME)
        return self._one(said)

    def _one(self, _said: Mapping[str, Any]) -> dict[str, Any]:
        return {"experiment_id": EXPERIMENT, "experiment": self._about()}

    def _all(self, _said: Mapping[str, Any]) -> dict[str, Any]:
        return {"experiments": [self._about()]}

    def _ignored(self, _said: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def _about(self) -> dict[str, Any]:
        return {
            "experiment_id": EXPERIMENT,
            "name": self._experiment,
            "artifact_location": "mlflow-artifacts:/",
            "lifecycle_stage": "active",
            "creation_time": self._main.started,
            "last_update_time": self._main.started,
        }

    # Models, which are files here.

    def _logged(self, method: str, tail: str, said: Mapping[str, Any]) -> dict[str, Any]:
        if (method, tail) == ("POST", ""):
            return {"model": self._new_model(said).whole()}
        if (method, tail) == ("POST", "search"):
            return {"models": [one.whole() for one in self._models.values()]}
        name, _, part = tail.partition("/")
        if name not in self._models:
            raise unknown(f"this step has logged no model {name[:100]!r}")
        model = self._models[name]
        if (method, part) == ("GET", ""):
            return {"model": model.whole()}
        if (method, part) == ("PATCH", ""):
            model.status = text(said.get("status") or model.status, 40)
            return {"model": model.whole()}
        if (method, part) == ("POST", "params"):
            model.params |= pairs_of(said.get("params", ()), LONGEST_PARAM)
            return {}
        if (method, part) == ("PATCH", "tags"):
            model.tags |= pairs_of(said.get("tags", ()), LONGEST_TAG)
            return {}
        raise unknown(f"there is no {method} {part[:100]!r} of a logged model here: {HERE}")

    def _new_model(self, said: Mapping[str, Any]) -> Logged:
        if len(self._models) >= MOST_RUNS:
            raise wrong(f"a step keeps at most {MOST_RUNS} logged models")
        # Outside of a run the client names none: it is the step's all the same.
        sub = self._sub({"run_id": said.get("source_run_id") or self._main.id})
        name = text(said.get("name") or "model", LONGEST_NAME)
        if "/" in name or trouble(name):
            raise wrong(f"a model's name {name!r} {trouble(name) or 'holds a slash'}")
        folders = {model.folder for model in self._models.values()}
        folder, number = f"mlflow/{sub.prefix}models/{name}/", 1
        while folder in folders:
            number += 1
            folder = f"mlflow/{sub.prefix}models/{name}-{number}/"
        model = Logged(
            f"m-{secrets.token_hex(16)}",
            name,
            folder,
            sub.id,
            text(said.get("model_type") or "", LONGEST_NAME),
            self._now(),
            params=pairs_of(said.get("params", ()), LONGEST_PARAM),
            tags=pairs_of(said.get("tags", ()), LONGEST_TAG),
        )
        self._models[model.id] = model
        return model

    # Files.

    def _folder(self, owner: str) -> str:
        if owner in self._subs:
            return f"mlflow/{self._subs[owner].prefix}"
        if owner in self._models:
            return self._models[owner].folder
        raise unknown(f"this step has no run and no model {owner[:100]!r}")

    def _file(self, path: str) -> str:
        owner, _, name = path.partition("/")
        whole = self._folder(owner) + name
        why = trouble(name) or trouble(whole)
        if why:
            raise wrong(f"the name of a file {name[:200]!r} {why}")
        return whole

    def _list(self, path: str) -> dict[str, Any]:
        owner, _, inner = path.strip("/").partition("/")
        if inner and trouble(inner):
            raise wrong(f"the name of a folder {inner[:200]!r} {trouble(inner)}")
        start = self._folder(owner) + (f"{inner}/" if inner else "")
        found: dict[str, dict[str, Any]] = {}
        for name, data in self._running.files.items():
            if name.startswith(start):
                first, slash, _ = name.removeprefix(start).partition("/")
                size = {} if slash else {"file_size": len(data)}
                found[first] = {"path": first, "is_dir": bool(slash), **size}
        return {"files": [found[name] for name in sorted(found)]}


def too_large(what: str) -> Refused:
    return Refused(
        413,
        "INVALID_PARAMETER_VALUE",
        f"{what}: at most {MOST_FILE >> 20} MiB a file and {MOST_BYTES >> 20} MiB in all; "
        "return large things from the step as its answer",
    )


def room(count: int, what: str) -> None:
    if count > MOST_NAMES:
        raise wrong(f"a step keeps at most {MOST_NAMES} {what}")


def listed(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def objects(given: Any) -> Iterator[dict[str, Any]]:
    for one in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(one, dict):
            raise wrong(f"got {type(one).__name__}, expected a list of objects")
        yield one


def text(value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise wrong(f"got {type(value).__name__}, expected a text")
    if len(value) > most:
        raise wrong(f"got {len(value)} characters, expected at most {most}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong("got a text that is not valid Unicode") from None
    return value


def name_of(value: Any) -> str:
    name = text(value, LONGEST_NAME)
    if not name.strip() or not name.isprintable():
        raise wrong(f"the name {name[:100]!r} is empty or holds a sign that cannot be seen")
    return name


def pairs_of(given: Any, most: int) -> dict[str, str]:
    return {name_of(one.get("key")): text(one.get("value", ""), most) for one in objects(given)}


def whole(value: Any) -> int:
    """JSON of protobuf writes long numbers as texts."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong(f"got {str(value)[:100]!r}, expected a whole number") from None
    if not -(2**63) <= number < 2**63:
        raise wrong(f"got {str(value)[:100]!r}, expected a whole number of 64 bits")
    return number


def metric_of(said: Mapping[str, Any]) -> tuple[str, float, int, int]:
    """Name, value, milliseconds, step."""
    value = said.get("value")
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise wrong(f"metric: got {str(value)[:100]!r}, expected a number") from None
    at, step = whole(said.get("timestamp", 0)), whole(said.get("step", 0))
    return name_of(said.get("key")), number, at, step
