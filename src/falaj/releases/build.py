"""Build a release folder: the same inputs give the same bytes, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from falaj.base import bundle, canonical, digests
from falaj.base.errors import Conflict, FalajError
from falaj.base.files import sync_folder
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.releases import DatasetRef, Manifest
from falaj.facts.runs import Code
from falaj.facts.wire import canonical_bytes
from falaj.releases.evidence import file_names
from falaj.releases.verify import refusal, scan

__all__ = ["build", "evidence_digest", "release_id"]


def build(
    folder: Path,
    *,
    model: str,
    version: str,
    runtime: str,
    task: str,
    schema: Schema,
    threshold: str | None,
    code: Code,
    run: str,
    datasets: tuple[DatasetRef, ...],
    label: Label,
    created: datetime,
    model_files: Mapping[str, Path],
    environment_lock: bytes,
    reference: Mapping[str, bytes],
    card: str,
    mlbom: Mapping[str, Any],
    evidence: Sequence[Mapping[str, Any]],
    pages: Mapping[str, str] | None = None,
) -> Manifest:
    """Write the release into `folder`, which appears complete or not at all. Unsigned.

    model_files: path below model/ -> file. reference: path below reference/ -> bytes. evidence:
    sealed envelopes about the digest of model/. pages: name -> the card in other forms. A folder that holds the very same release is left
    as it is. Raises Conflict when it holds another one, FalajError for names that may not be.
    """
    parts: dict[str, bytes | Path] = {
        "environment.lock": environment_lock,
        "card.md": card.encode(),
        **{name: page.encode() for name, page in (pages or {}).items()},
        "mlbom.cdx.json": canonical.dumps(mlbom) + b"\n",
        **{f"{bundle.MODEL}{name}": path for name, path in model_files.items()},
        **{f"reference/{name}": data for name, data in reference.items()},
        **{
            f"{bundle.EVIDENCE}{name}": canonical.dumps(envelope) + b"\n"
            for name, envelope in file_names(evidence)
        },
    }
    if not model_files:
        raise FalajError(
            "releases.no-model",
            f"release {model}/{version} has no model file",
            why="a release is a model and what is known about it",
            fix="run the pipeline; its last step returns a Model",
        )
    findings = bundle.wanted_paths([*parts, bundle.RELEASE])
    if findings:
        raise refusal(findings, f"{model}/{version}")

    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    part.mkdir()
    try:
        files = {name: _place(part / name, parts[name]) for name in sorted(parts)}
        manifest = Manifest(
            model=model,
            version=version,
            files=files,
            runtime=runtime,
            task=task,
            schema=schema,
            threshold=threshold,
            tree=digests.of_tree(
                {
                    name.removeprefix(bundle.MODEL): digest
                    for name, digest in files.items()
                    if name.startswith(bundle.MODEL)
                }
            ),
            environment=files["environment.lock"],
            code=code,
            run=run,
            datasets=datasets,
            label=label,
            created=created,
        )
        _place(part / bundle.RELEASE, canonical_bytes(manifest))
        for below in sorted({path.parent for path in part.rglob("*")} | {part}):
            sync_folder(below)
        if folder.exists():
            _same(folder, manifest)
            return manifest
        part.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def release_id(manifest: Manifest) -> str:
    """The release's id: the digest of its release.json."""
    return digests.of_bytes(canonical_bytes(manifest))


def evidence_digest(manifest: Manifest) -> str:
    """What approvals bind to."""
    return bundle.evidence_digest(manifest.files)


def _place(path: Path, source: bytes | Path) -> str:
    """Write or copy one file, durable; return the digest of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as sink:
        if isinstance(source, bytes):
            sink.write(source)
        else:
            with source.open("rb") as file:
                shutil.copyfileobj(file, sink, 1 << 20)
        sink.flush()
        os.fsync(sink.fileno())
    path.chmod(0o644)
    return digests.of_file(path)


def _same(folder: Path, manifest: Manifest) -> None:
    listing = scan(folder)
    there = {
        name: digests.of_file(path)
        for name, path in listing.files.items()
        if not bundle.is_bundle(name)
    }
    if listing.findings or there != {bundle.RELEASE: release_id(manifest), **manifest.files}:
        raise Conflict(
            "releases.exists",
            f"the folder {folder.name} holds another release",
            why="a release is immutable; what differs gets a new version",
            fix="give the new release its own version",
        )
