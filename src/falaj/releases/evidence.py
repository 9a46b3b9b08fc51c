"""What is said about a model, as in-toto statements: one verdict a gate, and how it was made."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from falaj.base import bundle, canonical, digests, time
from falaj.facts.attestations import (
    CODE_SCAN,
    GATE,
    PROVENANCE,
    TEST_RESULT,
    VULNERABILITIES,
    statement,
)
from falaj.facts.checks import GateReport
from falaj.facts.runs import Origin, Run
from falaj.facts.scans import Scan

__all__ = [
    "file_names",
    "gate_statements",
    "provenance_statement",
    "result_statements",
    "scan_statements",
]


def gate_statements(report: GateReport, *, name: str) -> list[dict[str, Any]]:
    """One statement for each gate that was required or has results; the verifier reads these.

    name: the model's, for people. The subject is the digest of the model's files.
    """
    gates = sorted({*report.required, *(result.gate for result in report.results)})
    return [
        statement(
            GATE,
            name,
            report.subject,
            {
                "gate": gate,
                "verdict": report.verdict_of(gate),
                "required": gate in report.required,
                "policy": report.policy,
                "at": report.at,
                "champion": report.champion,
                "results": [result for result in report.results if result.gate == gate],
                "waivers": [
                    waiver
                    for waiver in report.waivers
                    if any(r.gate == gate and r.check == waiver.check for r in report.results)
                ],
            },
        )
        for gate in gates
    ]


def result_statements(gates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The statements of gates once more, for tools that know tests and no gates of ours."""
    return [
        {**gate, "predicateType": TEST_RESULT, "predicate": bundle.test_result(gate["predicate"])}
        for gate in gates
    ]


def provenance_statement(
    run: Run, *, name: str, tree: str, builder: str, isolation: str = "none"
) -> dict[str, Any]:
    """SLSA provenance v1 of one training run, or of the import of a model.

    isolation: `none` where training and signing share a user, which is SLSA level 1.
    """
    inputs = [
        {
            "name": dataset.dataset,
            "digest": {"sha256": dataset.bytes.removeprefix("sha256:")},
            "annotations": {"content": dataset.content, "rows": dataset.rows},
        }
        for dataset in run.datasets
    ]
    if run.code.commit:
        inputs.append({"name": "source", "digest": {"gitCommit": run.code.commit}})
    if run.origin is not None:
        inputs += [
            {
                "name": f"{run.origin.name}/{run.origin.version}/{path}",
                "digest": {"sha256": digest.removeprefix("sha256:")},
            }
            for path, digest in sorted(run.origin.files.items())
        ]
    if digests.is_digest(run.environment.lock):
        lock = run.environment.lock.removeprefix("sha256:")
        inputs.append({"name": "environment.lock", "digest": {"sha256": lock}})
    return statement(
        PROVENANCE,
        name,
        tree,
        {
            "buildDefinition": {
                "buildType": "falaj:train/v1" if run.origin is None else "falaj:import/v1",
                "externalParameters": {
                    "pipeline": run.pipeline,
                    "commit": run.code.commit,
                    "dirty": run.code.dirty,
                    "params": run.parameters,
                    "seed": run.seed,
                }
                if run.origin is None
                else claimed(run.origin),
                "internalParameters": {"isolation": isolation},
                "resolvedDependencies": inputs,
            },
            "runDetails": {
                "builder": {"id": builder},
                "metadata": {
                    "invocationId": run.id,
                    "startedOn": run.started,
                    "finishedOn": run.ended or run.started,
                },
            },
        },
    )


def scan_statements(scan: Scan, *, version: str, tree: str) -> list[dict[str, Any]]:
    """What a scan found: about the lock (in-toto vulns v0.2), and about the code.

    version: Falaj's own. tree: digest of the code that made the model; a scan of other code is no
    evidence about it. Without a database nothing was looked up, and nothing is said.
    """
    made = []
    if scan.database and scan.built_at is not None:
        made.append(
            statement(
                VULNERABILITIES,
                scan.lock_file or "environment.lock",
                scan.lock,
                {
                    "scanner": {
                        "uri": "pkg:pypi/falaj",
                        "version": version,
                        "db": {
                            "uri": "falaj:vulndb",
                            "version": scan.database,
                            "lastUpdate": time.text(scan.built_at),
                        },
                        "result": [
                            {
                                "id": one.id,
                                "severity": [
                                    {"method": "falaj", "score": one.severity},
                                    *(
                                        [{"method": "cvss_v3_base", "score": f"{one.cvss:.1f}"}]
                                        if one.cvss is not None
                                        else []
                                    ),
                                ],
                                "annotations": [
                                    {"purl": f"pkg:pypi/{one.package}@{one.version}"},
                                    {"state": one.state},
                                    {"aliases": ",".join(one.ids)},
                                    {"fixed": ",".join(one.fixed)},
                                ],
                            }
                            for one in scan.vulnerabilities
                        ],
                    },
                    "metadata": {
                        "scanStartedOn": time.text(scan.at),
                        "scanFinishedOn": time.text(scan.at),
                    },
                    # Not of the standard: what was not looked up.
                    "unread": list(scan.unread),
                },
            )
        )
    if scan.tools and digests.is_digest(tree) and scan.tree == tree:
        code = [result for result in scan.results if result.gate == "code"]
        made.append(
            statement(
                CODE_SCAN,
                "code",
                tree,
                {
                    "tools": scan.tools,
                    "commit": scan.commit,
                    "at": scan.at,
                    "findings": scan.findings,
                    "results": code,
                },
            )
        )
    return made


def claimed(origin: Origin) -> dict[str, Any]:
    """What is known of a model that was not trained here: where it came from, and no more.

    Its metrics are not among it: they are nobody's evidence.
    """
    return {
        "server": origin.server,
        "name": origin.name,
        "version": origin.version,
        "model_id": origin.model_id,
        "run_id": origin.run_id,
        "flavor": origin.flavor,
    }


def file_names(envelopes: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name each envelope after what it says: gate-quality.dsse.json, test-result-quality.dsse.json."""
    named: list[tuple[str, Mapping[str, Any]]] = []
    used: set[str] = set()
    for envelope in envelopes:
        said = canonical.loads(base64.b64decode(envelope["payload"], validate=True))
        kind, predicate = said["predicateType"], said["predicate"]
        if kind == GATE:
            stem = f"gate-{predicate['gate']}"
        elif kind == TEST_RESULT:
            stem = f"test-result-{predicate['configuration'][0]['name'].removeprefix('gate/')}"
        else:
            stem = {PROVENANCE: "provenance"}.get(kind) or kind.rsplit("/", 2)[-2]
        stem = re.sub(r"[^a-z0-9.-]+", "-", stem.lower()).strip("-.") or "statement"
        name, number = f"{stem}.dsse.json", 1
        while name in used:
            number += 1
            name = f"{stem}-{number}.dsse.json"
        used.add(name)
        named.append((name, envelope))
    return named
