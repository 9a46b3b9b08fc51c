"""Entry of the process that imports Feast: `python -m falaj.links.feast.child REPO`.

Its import takes seconds and half a gigabyte, so it happens here alone. Answers JSON lines: `describe`,
`historical` (Parquet in, Parquet out), `online`. Nothing of the registry is unpickled: definitions
are read from its protocol buffers, and features computed by code of the registry are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["main"]

# feast's name of a type -> ours, which are those of Polars
SCALARS: Final = {
    "INT32": "Int32",
    "INT64": "Int64",
    "FLOAT": "Float32",
    "DOUBLE": "Float64",
    "STRING": "String",
    "BOOL": "Boolean",
    "UNIX_TIMESTAMP": "Datetime",
}
TYPES: Final = SCALARS | {
    f"{name}_LIST": f"List({ours})" for name, ours in SCALARS.items() if ours != "Datetime"
}
TIME: Final = "event_timestamp"
ROW: Final = "__falaj_label"
EXACT: Final = 2**53
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799  # of the years 1 to 9999
REFRESH_S: Final = 60.0
# What changes without a change of meaning: times, versions and counters that Feast keeps itself.
VOLATILE: Final = frozenset(
    ("meta", "lastUpdated", "versionId", "registrySchemaVersion", "projectMetadata", "infra")
)


class Refused(Exception):
    """An answer that is a refusal: its kind and what it is about."""

    def __init__(self, kind: str, **about: Any) -> None:
        super().__init__(kind)
        self.said = {"kind": kind, **about}


class Repo:
    """One feature repository, opened."""

    def __init__(self, folder: Path) -> None:
        from feast import FeatureStore

        self.folder = folder
        self.store = FeatureStore(repo_path=str(folder))
        self._seen: Any = None
        self._services: dict[tuple[str, bool], dict[str, Any]] = {}

    def _refresh(self) -> None:
        """Read the registry again when it may have changed."""
        path = str(getattr(self.store.config.registry, "path", ""))
        file = Path(path) if os.path.isabs(path) else self.folder / path  # noqa: PTH117 a plain text
        if "://" not in path and file.is_file():
            stat = file.stat()
            seen: Any = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        else:
            seen = int(datetime.now(UTC).timestamp() / REFRESH_S)
        if seen != self._seen:
            if self._seen is not None:
                self.store.refresh_registry()
            self._services.clear()
            self._seen = seen

    def service(self, name: str, full: bool) -> dict[str, Any]:
        self._refresh()
        if (name, full) not in self._services:
            self._services[name, full] = described(self.store, name, full)
        return self._services[name, full]

    def historical(self, said: dict[str, Any]) -> dict[str, Any]:
        import pandas as pd
        import pyarrow.parquet as pq

        service = self.service(said["service"], said["full"])
        must_be(service, said["expect"])
        labels = pd.read_parquet(said["labels"])
        missing = [key for key in service["entities"] if key not in labels.columns]
        if missing:
            raise Refused("entity", names=missing, known=service["entities"])
        columns: dict[str, Any] = {}
        for projection in service["projections"]:
            columns |= self._of_view(projection, labels)
        import pyarrow as pa

        table = pa.table({name: columns[name] for name in service["columns"]})
        pq.write_table(table, said["out"], compression="zstd", compression_level=1)
        return service

    def _of_view(self, said: dict[str, Any], labels: Any) -> dict[str, Any]:
        """Features of one view, a value a label.

        Each view is asked alone, and for each entity and time once: Feast's file store joins view
        after view, and drops labels that agree in the keys of the first, or of which a view knows
        only later rows.
        """
        import numpy as np
        import pyarrow as pa

        keys = [*said["keys"], TIME]
        codes = labels.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
        asked = labels[keys].assign(**{ROW: codes}).drop_duplicates(ROW).reset_index(drop=True)
        features = [name for name, _ in said["features"]]
        names = [column for _, column in said["features"]]
        if len(asked):
            job = self.store.provider.get_historical_features(
                self.store.config,
                [self._view(said)],
                [f"{said['called']}:{name}" for name in features],
                asked,
                self.store.registry,
                self.store.project,
                full_feature_names=said["full"],
                filter_by_created_timestamp=bool(said["created"]),
            )
            found = job.to_df()
        else:
            found = asked.assign(**dict.fromkeys(names))
        position = np.full(len(asked), -1, dtype="int64")
        position[found[ROW].to_numpy().astype("int64")] = np.arange(len(found))
        at = position[codes] if len(labels) else np.zeros(0, dtype="int64")
        taken = pa.array(at, mask=at < 0)
        made = {}
        for name in names:
            values = exact(found[name], name, said["types"][name])
            made[name] = values.take(taken)
        return made

    def _view(self, said: dict[str, Any]) -> Any:
        from feast.feature_view import DUMMY_ENTITY_NAME
        from feast.feature_view_projection import FeatureViewProjection

        view = self.store.registry.get_any_feature_view(
            said["view"], self.store.project, allow_cache=True
        )
        if view.entities and view.entities[0] == DUMMY_ENTITY_NAME:
            view.entities, view.entity_columns = [], []
        return view.with_projection(FeatureViewProjection.from_proto(said["proto"]))

    def online(self, said: dict[str, Any]) -> dict[str, Any]:
        service = self.service(said["service"], said["full"])
        must_be(service, said["expect"])
        self._must_have_online_store()
        rows = said["rows"]
        for key, kind in service["entities"].items():
            if not all(is_key(row.get(key, ...), kind) for row in rows):
                raise Refused("entity", names=[key], known=service["entities"])
        now = datetime.now(UTC)
        columns: dict[str, tuple[list[Any], list[Any]]] = {
            name: ([], []) for name in service["columns"]
        }
        if rows:
            # Feast refuses a question without a key; nothing is known about what has none.
            whole = [row for row in rows if None not in row.values()]
            found = iter(self._online(service, whole, now)) if whole else iter(())
            for row in rows:
                cells = {} if None in row.values() else next(found)
                for name, (values, times) in columns.items():
                    value, at = cells.get(name, (None, None))
                    values.append(value)
                    times.append(at)
        return {
            **service,
            "now": now.timestamp(),
            "values": {name: values for name, (values, _) in columns.items()},
            "at": {name: times for name, (_, times) in columns.items()},
        }

    def _online(self, service: dict[str, Any], rows: list[dict[str, Any]], now: datetime) -> Any:
        from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

        asked = self.store.get_feature_service(service["name"], allow_cache=True)
        answer = self.store.get_online_features(
            features=asked, entity_rows=rows, full_feature_names=service["full"]
        ).proto
        there = dict(zip(answer.metadata.feature_names.val, answer.results, strict=True))
        kept = {
            column: projection["max_age"]
            for projection in service["projections"]
            for _, column in projection["features"]
        }
        for number in range(len(rows)):
            cells = {}
            for name in service["columns"]:
                vector = there[name]
                stamp = vector.event_timestamps[number]
                at = stamp.seconds + stamp.nanos / 1e9
                value = plain(vector.values[number])  # noqa: PD011 no pandas
                if vector.statuses[number] == FieldStatus.NOT_FOUND or not stamp.seconds:
                    cells[name] = (None, None)
                elif kept[name] and now.timestamp() - at > kept[name]:
                    cells[name] = (None, at)  # as history has it: too old is none
                else:
                    cells[name] = (value, at)
            yield cells

    def _must_have_online_store(self) -> None:
        """Feast would make an empty SQLite file where there is none."""
        online = self.store.config.online_store
        if online is None:
            raise Refused("online", why="feature_store.yaml names no online store")
        if str(getattr(online, "type", "")) == "sqlite":
            file = self.folder / online.path
            if not file.is_file():
                raise Refused("online", why="its SQLite file is not there")


def is_key(value: Any, kind: str) -> bool:
    if value is ...:
        return False
    if value is None or not kind:
        return True
    if kind.startswith("Int"):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str) if kind == "String" else True


def must_be(service: dict[str, Any], expect: str) -> None:
    if expect and service["digest"] != expect:
        raise Refused("changed", now=service["digest"], expected=expect)


def described(store: Any, name: str, full: bool) -> dict[str, Any]:
    """A feature service by the registry's own words."""
    from feast.value_type import ValueType
    from feast.version import get_version
    from google.protobuf.json_format import MessageToDict

    registry = store.registry.proto()
    project = store.project

    def mine(found: Any) -> dict[str, Any]:
        return {one.spec.name: one for one in found if one.spec.project == project}

    services = mine(registry.feature_services)
    if name not in services:
        raise Refused("service", name=name, known=sorted(services))
    views = {**mine(registry.feature_views), **mine(registry.stream_feature_views)}
    entities = mine(registry.entities)
    spec = services[name].spec
    columns: dict[str, str] = {}
    joins: dict[str, str] = {}
    projections = []
    digests: dict[str, str] = {}
    ages: dict[str, float] = {}
    parts: dict[str, Any] = {"service": steady(MessageToDict(spec)), "entities": {}}
    for projection in spec.features:
        view = views.get(projection.feature_view_name)
        if view is None:
            raise Refused("on-demand", view=projection.feature_view_name)
        called = projection.feature_view_name_alias or projection.feature_view_name
        if projection.HasField("version_tag"):
            called += f"@v{projection.version_tag}"
        renamed = dict(projection.join_key_map)
        keys = []
        for column in view.spec.entity_columns:
            key = renamed.get(column.name, column.name)
            if column.name == "__dummy_id":
                continue
            keys.append(key)
            joins[key] = TYPES.get(ValueType(column.value_type).name, "")
        for entity in view.spec.entities:
            if entity in entities:
                parts["entities"][entity] = steady(MessageToDict(entities[entity].spec))
        features, types = [], {}
        for feature in projection.feature_columns:
            kind = ValueType(feature.value_type).name
            column = f"{called}__{feature.name}" if full else feature.name
            if kind not in TYPES:
                raise Refused("type", name=column, type=kind)
            if column in columns:
                raise Refused("twice", name=column)
            columns[column] = types[column] = TYPES[kind]
            features.append((feature.name, column))
        age = view.spec.ttl.seconds + view.spec.ttl.nanos / 1e9
        digests[called] = digest_of(steady(MessageToDict(view.spec)))
        if age:
            ages[called] = age
        projections.append(
            {
                "view": projection.feature_view_name,
                "called": called,
                "keys": keys,
                "features": features,
                "types": types,
                "max_age": age,
                "created": bool(view.spec.batch_source.created_timestamp_column),
                "full": full,
                "proto": projection,
            }
        )
    return {
        "name": name,
        "full": full,
        "entities": joins,
        "columns": columns,
        "views": digests,
        "max_age": ages,
        "digest": digest_of({**parts, "views": digests}),
        "registry": digest_of(steady(MessageToDict(registry))),
        "engine": f"feast {get_version()}",
        "projections": projections,
    }


def steady(said: Any) -> Any:
    """Without what changes by itself; pickled code goes by its text."""
    if isinstance(said, dict):
        drop = VOLATILE | ({"body"} if said.get("bodyText") else set())
        return {key: steady(value) for key, value in said.items() if key not in drop}
    if isinstance(said, list):
        return [steady(value) for value in said]
    return said


def digest_of(said: Any) -> str:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def exact(column: Any, name: str, wanted: str) -> Any:
    """A pandas column in the type that the view declares; NaN is null.

    pandas turns whole numbers with a gap into floats, which hold them exactly up to 2**53 only.
    Times are whole seconds, as online stores keep them.
    """
    import pyarrow as pa

    types = {
        "Int32": pa.int32(),
        "Int64": pa.int64(),
        "Float32": pa.float32(),
        "Float64": pa.float64(),
        "String": pa.string(),
        "Boolean": pa.bool_(),
        "Datetime": pa.timestamp("us", tz="UTC"),
    }
    is_list = wanted.startswith("List(")
    inner = types[wanted.removeprefix("List(").removesuffix(")")]
    kind = pa.list_(inner) if is_list else inner
    if wanted == "Int64" and column.dtype.kind == "f" and (column.abs() >= EXACT).any():
        raise Refused("lossy", name=name)
    if wanted == "Datetime":
        import pandas as pd

        column = pd.to_datetime(column, utc=True).dt.floor("s").astype("datetime64[us, UTC]")
    try:
        return pa.array(column, type=kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise Refused("mistyped", name=name, type=wanted) from None


def plain(value: Any) -> Any:
    """A value of Feast's protocol as JSON has it; NaN is null."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    said = getattr(value, kind)
    if kind == "unix_timestamp_val" and not FIRST_S <= said <= LAST_S:
        return None  # pandas' NaT, as a number
    if hasattr(said, "val"):
        return [None if isinstance(v, float) and math.isnan(v) else v for v in said.val]
    return None if isinstance(said, float) and math.isnan(said) else said


def failed(error: Exception) -> dict[str, Any]:
    """Feast quotes values and paths in its messages; the kind of the error must do."""
    if isinstance(error, Refused):
        return error.said
    text = str(error)
    if "cannot serve features" in text:
        why = "a view of it is being materialized" if "MATERIALIZING" in text else "never filled"
        return {"kind": "online", "why": why}
    if "no such table" in text:
        return {"kind": "online", "why": "a view of it was never applied to the online store"}
    return {"kind": "failed", "error": type(error).__name__}


def shown(service: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in service.items() if key not in {"projections", "full"}}


def main() -> None:
    # Whatever Feast prints must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    repo: Repo | None = None
    for line in sys.stdin:
        said = json.loads(line)
        try:
            repo = repo or Repo(Path(sys.argv[1]))
            does = {"historical": repo.historical, "online": repo.online}.get(said["do"])
            found = does(said) if does else repo.service(said["service"], said["full"])
            answer: dict[str, Any] = {"ok": shown(found)}
        except Exception as error:  # the edge of a foreign system
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            kind = {"kind": "repo", "error": type(error).__name__} if repo is None else None
            answer = {"error": kind or failed(error)}
        answers.write(json.dumps({"id": said["id"], **answer}) + "\n")
        answers.flush()
    os._exit(0)  # threads of Dask would be waited for


if __name__ == "__main__":
    main()
