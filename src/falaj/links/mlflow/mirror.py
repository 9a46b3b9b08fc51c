"""The port Mirror over MLflow: each step looks first whether it was done already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from typing import Any, Final

from falaj.base.strangers import Away, Refused
from falaj.links.mlflow.client import ARTIFACTS, Client
from falaj.links.mlflow.names import MOST_TAG, batches, cut, renamed
from falaj.ports.mirrors import ShownRelease, ShownRun

__all__ = ["MlflowMirror"]

RUN: Final = "falaj.run"
RELEASE: Final = "falaj.release"
STATUS: Final = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_DIGEST: Final = 32  # MLflow takes 36 characters; the whole one stands in a tag


class MlflowMirror:
    """One experiment of one server. No MLflow package is needed."""

    def __init__(self, client: Client, experiment: str) -> None:
        self._client, self._name = client, experiment
        self._experiment = ""

    def show_run(self, run: ShownRun) -> str:
        there = self._run(run)
        name, home = str(there["run_id"]), str(there.get("artifact_uri", ""))
        self._log(name, run)
        if run.datasets:
            self._client.post("runs/log-inputs", {"run_id": name, "datasets": inputs(run)})
        self._put(home, run.files)
        self._client.post(  # last: what is not finished there is not complete there
            "runs/update",
            {"run_id": name, "status": STATUS[run.status], "end_time": ms(run.ended)},
        )
        return name

    def show_release(self, release: ShownRelease) -> str:
        found = self._versions(release)
        if not found:
            run = self.show_run(release.run)
            home = str(self._found(release.run.run)[0].get("artifact_uri", ""))
            folder = f"{home}/releases/{release.version}"
            self._put(folder, release.files)
            self._made("registered-models/create", {"name": release.model})
            self._client.post(
                "model-versions/create",
                {
                    "name": release.model,
                    "source": folder,
                    "run_id": run,
                    "description": f"release {release.version}",
                    "tags": pairs({**release.tags, RELEASE: release.release}),
                },
            )
            found = self._versions(release)
            if not found:
                raise self._odd("a model version that was just made is not there")
        # A worker that was thought dead may have made the same one: the oldest is the one.
        first, *others = sorted(found, key=int)
        for other in others:
            self._client.post(
                "model-versions/delete",
                {"name": release.model, "version": other},
                method="DELETE",
            )
        return first

    def move_alias(self, model: str, alias: str, release: ShownRelease) -> None:
        version = self.show_release(release)
        self._client.post(
            "registered-models/alias", {"name": model, "alias": alias, "version": version}
        )

    def _run(self, run: ShownRun) -> dict[str, Any]:
        found = self._found(run.run)
        if not found:
            self._client.post(
                "runs/create",
                {
                    "experiment_id": self._home(),
                    "run_name": run.name,
                    "start_time": ms(run.started),
                    "tags": [{"key": RUN, "value": run.run}],
                },
            )
            found = self._found(run.run)
            if not found:
                raise self._odd("a run that was just made is not there")
        first, *others = sorted(found, key=lambda one: str(one["run_id"]))
        for other in others:
            self._client.post("runs/delete", {"run_id": str(other["run_id"])})
        return first

    def _found(self, run: str) -> list[dict[str, Any]]:
        answer = self._client.post(
            "runs/search",
            {
                "experiment_ids": [self._home()],
                "filter": f"tags.`{RUN}` = '{run}'",
                "run_view_type": "ACTIVE_ONLY",
                "max_results": 100,
            },
        )
        listed = [entry.get("info") for entry in dicts(answer.get("runs"))]
        return [info for info in dicts(listed) if "run_id" in info]

    def _versions(self, release: ShownRelease) -> list[str]:
        asked = f"name = '{release.model}' AND tags.`{RELEASE}` = '{release.release}'"
        answer = self._client.get("model-versions/search", filter=asked, max_results="100")
        listed = [str(entry.get("version")) for entry in dicts(answer.get("model_versions"))]
        return [version for version in listed if version.isdecimal()]

    def _home(self) -> str:
        if not self._experiment:
            self._made("experiments/create", {"name": self._name})
            answer = self._client.get("experiments/get-by-name", experiment_name=self._name)
            found = answer.get("experiment")
            if not isinstance(found, dict) or "experiment_id" not in found:
                raise self._odd("an experiment that was just made is not there")
            if found.get("lifecycle_stage") == "deleted":
                raise Away(
                    "tracking.experiment-deleted",
                    f"experiment {self._name!r} was deleted on {self._client.url}",
                    why="somebody there did not want it; it is not brought back silently",
                    fix="restore it there, or name another one: [links.mlflow] experiment",
                )
            self._experiment = str(found["experiment_id"])
        return self._experiment

    def _made(self, call: str, body: Mapping[str, Any]) -> None:
        """Make it, unless it is there."""
        try:
            self._client.post(call, body)
        except Refused as refused:
            if "RESOURCE_ALREADY_EXISTS" not in refused.problems[0].why:
                raise

    def _log(self, name: str, run: ShownRun) -> None:
        params, metrics = (
            renamed(run.params),
            renamed({*run.metrics, *(s.name for s in run.series)}),
        )
        others = {
            f"falaj.name.{there}": ours
            for ours, there in [*params.items(), *metrics.items()]
            if ours != there
        }
        drawn = {series.name for series in run.series}
        points = (
            point(metrics[series.name], value, round(at * 1000), step)
            for series in run.series
            for step, at, value in zip(series.steps, series.times, series.values, strict=True)
        )
        last = (
            point(metrics[name], value, ms(run.ended), 0)
            for name, value in run.metrics.items()
            if name not in drawn
        )
        for body in batches(
            tags=pairs({**run.tags, **others}),
            params=[{"key": params[n], "value": cut(v)} for n, v in run.params.items()],
            metrics=chain(points, last),
        ):
            self._client.post("runs/log-batch", {"run_id": name, **body})

    def _put(self, home: str, files: Mapping[str, bytes]) -> None:
        """Through the server alone: where it hands out addresses of a store, files stay here."""
        if not home.startswith(ARTIFACTS):
            return
        below = home.removeprefix(ARTIFACTS).strip("/")
        for path, data in files.items():
            self._client.put_file(f"{below}/{path}", data)

    def _odd(self, why: str) -> Away:
        return Away(
            "tracking.bad-answer",
            f"{self._client.url} answers, but not as MLflow does",
            why=why,
            fix="is this the address of the tracking server? [links.mlflow] url",
        )


def inputs(run: ShownRun) -> list[dict[str, Any]]:
    return [
        {
            "tags": pairs(
                {
                    "mlflow.data.context": "training",
                    "falaj.content": version.content,
                    "falaj.bytes": version.bytes,
                    "falaj.rows": str(version.rows),
                }
            ),
            "dataset": {
                "name": version.dataset,
                "digest": version.content.rpartition(":")[2][:MOST_DIGEST],
                "source_type": "falaj",
                "source": json.dumps({"dataset": version.dataset, "content": version.content}),
                "profile": json.dumps({"num_rows": version.rows}),
            },
        }
        for version in run.datasets
    ]


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    names = renamed(tags)
    return [{"key": names[n], "value": cut(v, MOST_TAG)} for n, v in tags.items() if v]


def dicts(found: object) -> list[dict[str, Any]]:
    """The objects of what should be a list of objects."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def point(name: str, value: float, at_ms: int, step: int) -> dict[str, Any]:
    return {"key": name, "value": number(value), "timestamp": at_ms, "step": step}


def number(value: float) -> float | str:
    """JSON has no NaN; MLflow reads these words."""
    if value != value:  # noqa: PLR0124 NaN
        return "NaN"
    return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"
