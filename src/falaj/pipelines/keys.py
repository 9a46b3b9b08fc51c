"""The key of a step: parts that are compared by people, and their digest."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from falaj.base import canonical, digests
from falaj.base.errors import FalajError, Place
from falaj.facts.data import DatasetVersion
from falaj.facts.runs import Artifact, Environment
from falaj.pipelines.declare import Options

__all__ = [
    "artifact_part",
    "dataset_part",
    "environment_part",
    "key_of",
    "reads_part",
    "seed_of",
    "variables_part",
]


def key_of(parts: Mapping[str, Any]) -> str:
    return digests.of_bytes(canonical.dumps(_pairs(parts)))


def _pairs(value: Any) -> Any:
    """Dicts as sorted pairs: names of files and columns may be in any script."""
    if isinstance(value, Mapping):
        return [[key, _pairs(value[key])] for key in sorted(value)]
    return [_pairs(item) for item in value] if isinstance(value, list | tuple) else value


def seed_of(seed: int, step: str) -> int:
    """First 8 bytes of sha256(run seed, step name), as an unsigned number."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{step}".encode()).digest()[:8], "big")


def artifact_part(artifact: Artifact) -> Any:
    """What has a digest of its values by them and their exact types, all else by its bytes."""
    if artifact.content:
        return {"content": artifact.content, "schema": artifact.schema}
    return {"digest": artifact.digest}


def dataset_part(version: DatasetVersion) -> Any:
    return {"dataset": version.dataset, "content": version.content, "schema": version.schema}


def environment_part(environment: Environment) -> dict[str, str]:
    return {
        "lock": environment.lock,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": environment.platform or f"{sys.platform}",
    }


def reads_part(root: Path, options: Options, place: Place) -> dict[str, str]:
    """Digests of declared files. Raises FalajError when a glob finds nothing."""
    found: dict[str, str] = {}
    for pattern in options.reads:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
        if not paths:
            raise FalajError(
                "pipelines.reads-nothing",
                f"step {options.name} reads {pattern!r}, which matches no file",
                place=place,
                fix="mend the glob in @step(reads=[...]); it counts from the project's folder",
            )
        found |= {path.relative_to(root).as_posix(): digests.of_file(path) for path in paths}
    return found


def variables_part(names: Sequence[str]) -> dict[str, str | None]:
    """Digests of variables: values may be secrets. None: not set."""
    values = {name: os.environ.get(name) for name in names}
    return {
        name: None if value is None else digests.of_bytes(value.encode())
        for name, value in values.items()
    }
