"""The port Registry over MLflow: a model version is found, its files are fetched, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from falaj.base import paths
from falaj.base.errors import FalajError, NotFound
from falaj.base.strangers import Refused, plain
from falaj.facts.runs import Origin
from falaj.links.mlflow.client import ARTIFACTS, Client, too_odd
from falaj.links.mlflow.flavors import MANIFEST, MOST_MANIFEST, Said, read_manifest
from falaj.ports.mirrors import Claimed

__all__ = ["MlflowRegistry"]

NAMED: Final = re.compile(
    r"(?:models:/)?(?P<name>[^/:@\x00-\x1f]{1,250})(?:@(?P<alias>[\w-]{1,250})|/(?P<number>\d{1,9}))"
)
MODEL_ID: Final = re.compile(r"models:/(m-[0-9a-f]{32})")
MOST_FILES: Final = 1000
MOST_FOLDERS: Final = 100
MOST_DEPTH: Final = 8
MOST_BYTES: Final = 2**31 - 1  # of all files together; also the limit of one ONNX file
MOST_WORDS: Final = 1000  # parameters, metrics
MOST_VALUE: Final = 1e300
BESIDE: Final = ("requirements.txt", "conda.yaml", "python_env.yaml", "input_example.json")
MOST_BESIDE: Final = 1 << 20


class MlflowRegistry:
    """Everything that the server says is checked before it is used, and kept as a claim."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def fetch(self, name: str, folder: Path) -> Claimed:
        version = self._version(name)
        model, number = str(version["name"]), str(version["version"])
        root = self._root(model, number)
        listed = self._listed(root)
        if MANIFEST not in listed:
            raise FalajError(
                "imports.no-manifest",
                f"{model}/{number} has no file {MANIFEST}",
                why="it was not logged as an MLflow model",
                fix="log it with mlflow.onnx.log_model, then register that",
            )
        files = {MANIFEST: self._fetched(root, MANIFEST, listed, folder, MOST_MANIFEST)}
        said = read_manifest((folder / MANIFEST).read_bytes(), f"{model}/{number}")
        if said.file not in listed:
            raise too_odd(self._client.url, f"{MANIFEST} names {said.file}, which is not there")
        for path in (said.file, *(one for one in BESIDE if listed.get(one, 1 << 62) < MOST_BESIDE)):
            if path not in files:
                files[path] = self._fetched(root, path, listed, folder, MOST_BYTES)
        return Claimed(
            origin=self._origin(version, said, files),
            model=said.file,
            files={path: folder / path for path in files},
            columns=said.columns,
        )

    def _version(self, name: str) -> dict[str, Any]:
        asked = NAMED.fullmatch(name)
        if asked is None:
            raise FalajError(
                "imports.bad-name",
                f"got {plain(name)!r}, expected models:/NAME@ALIAS or models:/NAME/3",
                fix="name one version: an alias, or its number",
            )
        words = {"name": asked["name"]}
        try:
            if asked["alias"]:
                answer = self._client.get("registered-models/alias", **words, alias=asked["alias"])
            else:
                answer = self._client.get("model-versions/get", **words, version=asked["number"])
        except Refused as refused:
            raise NotFound(
                "imports.unknown",
                f"{self._client.url} has no {plain(name)}",
                why=str(refused),
                fix="look there for the name, its versions and aliases",
            ) from None
        found = answer.get("model_version")
        if not isinstance(found, dict) or found.get("name") != asked["name"]:
            raise too_odd(self._client.url, "it answers with another model than was asked for")
        number = str(found.get("version"))
        if not number.isdecimal() or (asked["number"] and number != asked["number"]):
            raise too_odd(self._client.url, f"it answers with version {number}")
        return found

    def _root(self, model: str, number: str) -> str:
        """Where the server keeps the files, as a path of its own artifact service."""
        answer = self._client.get("model-versions/get-download-uri", name=model, version=number)
        address = str(answer.get("artifact_uri", ""))
        path = address.removeprefix(ARTIFACTS).strip("/")
        if not address.startswith(ARTIFACTS) or not path:
            raise FalajError(
                "imports.not-served",
                f"the files of {model}/{number} lie at {plain(address)}",
                why="the tracking server does not hand them out itself, and no other address of "
                "a stranger is followed",
                fix="start it with --artifacts-destination, so that it serves artifacts",
            )
        if trouble(path):
            raise too_odd(self._client.url, f"it keeps files at {path}")
        return path

    def _listed(self, root: str) -> dict[str, int]:
        """Every file below `root`, with its size. Raises for what no honest listing holds."""
        found: dict[str, int] = {}
        folders, seen = [""], 0
        while folders:
            inside = folders.pop()
            seen += 1
            answer = self._client.list_files(f"{root}/{inside}".rstrip("/"))
            entries = answer.get("files", [])
            if not isinstance(entries, list) or seen > MOST_FOLDERS:
                raise too_odd(self._client.url, f"its list of files has no end ({seen} folders)")
            for entry in entries:
                path, is_dir, size = self._entry(entry, inside)
                if path in found or len(found) >= MOST_FILES:
                    raise too_odd(
                        self._client.url, f"its list of files has no end, or {path} twice"
                    )
                if is_dir:
                    folders.append(path)
                else:
                    found[path] = size
        if sum(found.values()) > MOST_BYTES:
            raise FalajError(
                "imports.too-large",
                f"the model's files are {sum(found.values()):,} bytes together",
                why=f"at most {MOST_BYTES:,} are taken",
                fix="log the model without data and checkpoints",
            )
        return found

    def _entry(self, entry: object, inside: str) -> tuple[str, bool, int]:
        if not isinstance(entry, dict):
            raise too_odd(self._client.url, "its list of files holds something else")
        name, size = entry.get("path"), entry.get("file_size", 0)
        name = name.removeprefix(f"{inside}/") if isinstance(name, str) and inside else name
        path = f"{inside}/{name}".lstrip("/") if isinstance(name, str) else ""
        if not isinstance(name, str) or "/" in name or trouble(path):
            raise too_odd(self._client.url, f"it names a file {name!r}")
        if path.count("/") >= MOST_DEPTH:
            raise too_odd(self._client.url, f"its folders lie {MOST_DEPTH} deep")
        is_dir = entry.get("is_dir") is True
        if not is_dir and (isinstance(size, bool) or not isinstance(size, int | str)):
            raise too_odd(self._client.url, f"{path} has no size")
        if not is_dir and not str(size).isdecimal():  # protobuf writes 64 bits as text
            raise too_odd(self._client.url, f"{path} has the size {size}")
        return path, is_dir, 0 if is_dir else int(size)

    def _fetched(
        self, root: str, path: str, listed: Mapping[str, int], folder: Path, most: int
    ) -> str:
        if listed[path] > most:
            raise too_odd(self._client.url, f"{path} has {listed[path]} bytes")
        to = folder / path
        to.parent.mkdir(parents=True, exist_ok=True)
        return self._client.get_file(f"{root}/{path}", listed[path], to)

    def _origin(self, version: Mapping[str, Any], said: Said, files: Mapping[str, str]) -> Origin:
        source = MODEL_ID.fullmatch(str(version.get("source")))
        run = str(version.get("run_id") or "")
        params, metrics, tags = self._run(run) if re.fullmatch(r"[0-9a-f]{32}", run) else ({},) * 3
        commit = str(tags.get("mlflow.source.git.commit", ""))
        return Origin(
            server=self._client.url,
            name=str(version["name"]),
            version=str(version["version"]),
            model_id=source[1] if source else "",
            run_id=run[:64],
            mlflow_version=said.mlflow_version,
            flavor=said.flavor,
            files=dict(files),
            claimed={n: v for n, v in metrics.items() if isinstance(v, float)},
            said={n: str(v) for n, v in params.items()} | ({"commit": commit} if commit else {}),
        )

    def _run(self, run: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What the run's page says; a run that was deleted says nothing."""
        try:
            answer = self._client.get("runs/get", run_id=run)
        except Refused:
            return {}, {}, {}
        held = answer.get("run")
        data = held.get("data") if isinstance(held, dict) else None
        if not isinstance(data, dict):
            return {}, {}, {}
        return words(data.get("params")), numbers(data.get("metrics")), words(data.get("tags"))


def trouble(path: str) -> str:
    """Why a path is no plain path below a folder; nothing where it is one, also when unquoted."""
    return paths.trouble(path) or paths.trouble(unquote(path))


def words(found: object) -> dict[str, Any]:
    listed = found if isinstance(found, list) else []
    return {
        plain(one["key"]): plain(one.get("value"))
        for one in listed[:MOST_WORDS]
        if isinstance(one, dict) and isinstance(one.get("key"), str)
    }


def numbers(found: object) -> dict[str, Any]:
    """Metrics that are finite numbers; JSON of a stranger may hold anything."""
    made: dict[str, Any] = {}
    for one in (found if isinstance(found, list) else [])[:MOST_WORDS]:
        if not isinstance(one, dict) or not isinstance(one.get("key"), str):
            continue
        value = one.get("value")
        if isinstance(value, int | float) and abs(value) < MOST_VALUE:  # NaN is below nothing
            made[plain(one["key"])] = float(value)
    return made
