"""The ML-BOM: CycloneDX 1.6 as a plain dict, with the model card's numbers and every dependency.

Schema: https://cyclonedx.org/docs/1.6/json/. All numbers are text there, so the document is
canonical JSON. Written by hand because that project's Python objects drop `modelCard`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from falaj.base import digests, time
from falaj.base.locks import read_lock
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.releases import DatasetRef

__all__ = ["mlbom", "trouble"]

SERIAL: Final = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def mlbom(
    *,
    model: str,
    version: str,
    task: str,
    runtime: str,
    tree: str,
    files: Mapping[str, str],
    schema: Schema,
    report: GateReport,
    datasets: Sequence[DatasetRef],
    label: Label,
    environment_lock: bytes,
    created: datetime,
    notes: Mapping[str, str],
    licences: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Deterministic: the serial number comes from the digest of the model's files.

    files: relative path -> digest of the model's files. notes: see card.NOTES. licences:
    name==version -> SPDX expression, of those that are known.
    """
    root = f"model:{model}@{version}"
    lock = read_lock(environment_lock)
    known = licences or {}
    libraries = [
        _library(pin.name, pin.version, pin.hashes, known.get(f"{pin.name}=={pin.version}", ""))
        for pin in lock.pins
    ]
    data = [_dataset(ref, label) for ref in datasets]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_uuid(tree)}",
        "version": 1,
        "metadata": {
            "timestamp": time.text(created),
            "tools": {"components": [{"type": "application", "name": "falaj"}]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": root,
                "name": model,
                "version": version,
                "description": notes.get("summary", "") or f"{task} model in {runtime} form",
                "hashes": [{"alg": "SHA-256", "content": tree.removeprefix("sha256:")}],
                "modelCard": _model_card(task, runtime, schema, report, data, notes),
                "properties": [
                    {"name": "falaj:tree", "value": tree},
                    {"name": "falaj:policy", "value": report.policy},
                    {"name": "falaj:environment.lock", "value": digests.of_bytes(environment_lock)},
                    # Asked for without one version: whoever scans this bill has to know.
                    *({"name": "falaj:not-pinned", "value": line} for line in lock.unread),
                    *(
                        {"name": f"falaj:gate:{gate}", "value": str(report.verdict_of(gate))}
                        for gate in sorted(report.required)
                    ),
                ],
            },
        },
        "components": [
            *(
                {
                    "type": "file",
                    "bom-ref": f"file:{name}",
                    "name": name,
                    "hashes": [{"alg": "SHA-256", "content": files[name].removeprefix("sha256:")}],
                }
                for name in sorted(files)
            ),
            *data,
            *libraries,
        ],
        "dependencies": [
            {
                "ref": root,
                "dependsOn": sorted(
                    [
                        *(f"file:{name}" for name in files),
                        *(part["bom-ref"] for part in data),
                        *(part["bom-ref"] for part in libraries),
                    ]
                ),
            }
        ],
    }


def trouble(bill: Mapping[str, Any]) -> list[str]:
    """What is wrong with a bill, as far as that can be seen without the schema (300 kB of JSON).

    Form and version, the serial number, names and types of components, references that lead
    nowhere or stand twice, hashes, package addresses.
    """
    found: list[str] = []
    if (bill.get("bomFormat"), bill.get("specVersion")) != ("CycloneDX", "1.6"):
        found.append(f"it says {bill.get('bomFormat')} {bill.get('specVersion')}")
    if not SERIAL.fullmatch(str(bill.get("serialNumber"))):
        found.append(f"serialNumber: {bill.get('serialNumber')!r} is no urn:uuid")
    metadata = bill.get("metadata")
    root = metadata.get("component") if isinstance(metadata, Mapping) else None
    if not isinstance(root, Mapping) or root.get("type") != "machine-learning-model":
        return [*found, "metadata.component is no machine-learning-model"]
    if not isinstance(root.get("modelCard"), Mapping):
        found.append("metadata.component has no modelCard")
    parts = [root, *bill.get("components", ())]
    known: set[str] = set()
    for part in parts:
        name = part.get("bom-ref", "")
        if name in known or not name:
            found.append(f"bom-ref {name!r} is missing or stands twice")
        known.add(name)
        if part.get("type") not in TYPES or not part.get("name"):
            found.append(f"{name}: type {part.get('type')!r}, name {part.get('name')!r}")
        found += [
            f"{name}: {one.get('content')!r} is no SHA-256"
            for one in part.get("hashes", ())
            if not digests.is_digest(f"sha256:{one.get('content')}")
        ]
        if part.get("type") == "library" and not str(part.get("purl", "")).startswith("pkg:pypi/"):
            found.append(f"{name}: purl {part.get('purl')!r}")
    for one in bill.get("dependencies", ()):
        lost = sorted({one.get("ref"), *one.get("dependsOn", ())} - known)
        if lost:
            found.append(f"dependencies name {lost[0]!r}, which is no component")
    return found


TYPES: Final = ("machine-learning-model", "file", "data", "library", "application")


def _model_card(
    task: str,
    runtime: str,
    schema: Schema,
    report: GateReport,
    data: Sequence[Mapping[str, Any]],
    notes: Mapping[str, str],
) -> dict[str, Any]:
    considerations = {
        "users": _told(notes, "users"),
        "useCases": _told(notes, "intended_use"),
        "technicalLimitations": _told(notes, "limits", "out_of_scope"),
        "ethicalConsiderations": [{"name": words} for words in _told(notes, "ethics")],
        "fairnessAssessments": [
            {"groupAtRisk": _slice(result), "harms": result.reason}
            for result in report.results
            if result.gate == "bias" and result.verdict is not Verdict.PASS
        ],
    }
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": task,
            "modelArchitecture": runtime,
            "datasets": [{"ref": part["bom-ref"]} for part in data],
            "inputs": [
                {"format": f"{t.name}: {t.datatype} {list(t.shape)}"} for t in schema.inputs
            ],
            "outputs": [
                {"format": f"{t.name}: {t.datatype} {list(t.shape)}"} for t in schema.outputs
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                _metric(result) for result in report.results if result.value is not None
            ]
        },
        "considerations": {key: value for key, value in considerations.items() if value},
    }


def _metric(result: CheckResult) -> dict[str, Any]:
    metric: dict[str, Any] = {
        "type": result.metric or result.check,
        "value": repr(result.value),
        "slice": _slice(result),
    }
    bounds = {"lowerBound": result.low, "upperBound": result.high}
    known = {name: repr(value) for name, value in bounds.items() if value is not None}
    return {**metric, "confidenceInterval": known} if known else metric


def _slice(result: CheckResult) -> str:
    """The part of the rows that a check looked at: `bias.origin=JFK` -> `origin=JFK`."""
    rest = result.check.partition(".")[2]
    return rest if "=" in rest else "all"


def _dataset(ref: DatasetRef, label: Label) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"dataset:{ref.dataset}@{digests.short(ref.content)}",
        "name": ref.dataset,
        "version": digests.short(ref.content),
        "hashes": [{"alg": "SHA-256", "content": ref.bytes.removeprefix("sha256:")}],
        "data": [
            {
                "type": "dataset",
                "name": ref.dataset,
                "classification": str(label.classification),
                "contents": {
                    "properties": [
                        {"name": "falaj:content", "value": ref.content},
                        {"name": "falaj:rows", "value": str(ref.rows)},
                        {"name": "falaj:countries", "value": ",".join(label.countries)},
                    ]
                },
            }
        ],
    }


def _library(name: str, version: str, hashes: tuple[str, ...], licence: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{quote(name)}@{quote(version, safe='')}"
    part: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if SPDX.fullmatch(licence):
        part["licenses"] = [{"expression": licence}]
    elif licence:  # a family, such as BSD-unspecified: no name of SPDX
        part["licenses"] = [{"license": {"name": licence}}]
    if hashes:
        # A lock lists the hash of every file of a version; which one was installed is not told.
        part["externalReferences"] = [
            {
                "type": "distribution",
                "url": purl,
                "comment": "the files that the lock allows; one of them is installed",
                "hashes": [{"alg": "SHA-256", "content": value} for value in hashes],
            }
        ]
    return part


SPDX: Final = re.compile(r"(?!.*-unspecified)[A-Za-z0-9.+()\- ]+")


def _told(notes: Mapping[str, str], *keys: str) -> list[str]:
    return [notes[key].strip() for key in keys if notes.get(key, "").strip()]


def _uuid(tree: str) -> uuid.UUID:
    return uuid.UUID(bytes=bytes.fromhex(tree.removeprefix("sha256:"))[:16], version=4)
