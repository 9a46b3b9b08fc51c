"""A key ring and a whole signed release, made by the real builder and signer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from falaj.base import digests, dsse
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.data import Classification, DatasetVersion, Label
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.releases import DatasetRef, Manifest
from falaj.facts.runs import Code, Run, RunStatus
from falaj.links.keyring.keys import KeyRing
from falaj.releases.build import build, release_id
from falaj.releases.card import card
from falaj.releases.evidence import gate_statements, provenance_statement, result_statements
from falaj.releases.mlbom import mlbom
from falaj.releases.sign import sign_release

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
LOCK = b"""\
numpy==2.1.0 \\
    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \\
    --hash=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
onnxruntime==1.20.0 ; python_version >= '3.11'
"""
SCHEMA = Schema(
    inputs=(
        Tensor(
            name="x",
            datatype=Datatype.FP32,
            shape=(-1, 2),
            columns=(
                Column(name="dep_delay", nullable=True, minimum=-60.0, maximum=1.5e3, unit="min"),
                Column(name="distance", unit="mi"),
            ),
        ),
    ),
    outputs=(Tensor(name="p", datatype=Datatype.FP32, shape=(-1, 1)),),
)
LABEL = Label(classification=Classification.INTERNAL, countries=("AE",), purposes=("forecast",))
DATA = DatasetRef(
    dataset="flights", content="sha256:" + "1" * 64, bytes="sha256:" + "2" * 64, rows=336776
)


class Made(NamedTuple):
    folder: Path
    manifest: Manifest
    id: str


def result(gate, verdict=Verdict.PASS, check=None):
    return CheckResult(
        check=check or f"{gate}.one",
        gate=gate,
        verdict=verdict,
        reason=f"{gate} was looked at",
        metric="roc_auc",
        value=0.8125,
        low=0.79,
        high=0.83,
        limit=0.7,
        n=1000,
    )


def report_for(tree, *results, required=("quality", "security"), **more):
    return GateReport(
        subject=tree,
        policy="sha256:" + "7" * 64,
        at=MADE,
        results=results or (result("quality"), result("security")),
        required=required,
        **more,
    )


RUN = Run(
    id="01HRUN",
    project="flights",
    pipeline="delay",
    parameters={"depth": 6, "rate": 0.1},
    seed=7,
    principal="aisha",
    status=RunStatus.OK,
    started=MADE,
    ended=MADE,
    code=Code(commit="0" * 40),
    datasets=(
        DatasetVersion(
            dataset="flights",
            bytes="sha256:" + "2" * 64,
            content="sha256:" + "1" * 64,
            schema="s",
            columns={},
            rows=336776,
            source="flights.parquet",
            at=MADE,
        ),
    ),
)


@pytest.fixture(scope="session")
def key_ring(tmp_path_factory):
    """Identities with one role each, and one that is trusted for nothing here."""
    ring = KeyRing(tmp_path_factory.mktemp("ring") / "keys", clock=lambda: MADE)
    roles = ("release", "gate", "build", "approval", "log", "policy")
    for role in roles:
        ring.create(f"{role}r", (role,))
    ring.create("second", ("release",))
    ring.create("outsider", ("plan",))
    return ring


@pytest.fixture(scope="session")
def make_release(key_ring, tmp_path_factory):
    def make(folder=None, *, report=None, signer="releaser", gate="gater", version="7", more=()):
        base = tmp_path_factory.mktemp("made")
        model = base / "model.onnx"
        model.write_bytes(b"\x08\x07not a real graph" * 20)
        config = base / "config.json"
        config.write_bytes(b'{"a":1}')
        files = {"model.onnx": model, "deep/config.json": config}
        hashes = {name: digests.of_file(path) for name, path in files.items()}
        tree = digests.of_tree(hashes)
        report = report or report_for(tree)
        statements = gate_statements(report, name="delay")
        said = (*statements, *result_statements(statements))
        envelopes = [dsse.seal(one, key_ring.signer(gate)) for one in said]
        made_how = provenance_statement(RUN, name="delay", tree=tree, builder="falaj:local")
        envelopes.append(dsse.seal(made_how, key_ring.signer("buildr")))
        envelopes.extend(more)
        folder = folder or base / f"delay-{version}"
        about = {
            "model": "delay",
            "version": version,
            "task": "binary-classification",
            "runtime": "onnx",
            "schema": SCHEMA,
            "label": LABEL,
        }
        notes = {"summary": "Late or not.", "intended_use": "Planning | <b>staff</b>"}
        manifest = build(
            folder,
            **about,
            threshold="0.5",
            code=RUN.code,
            run=RUN.id,
            datasets=(DATA,),
            created=MADE,
            model_files=files,
            environment_lock=LOCK,
            reference={"edges.json": b"{}", "probe.npz": b"123"},
            card=card(
                **about, threshold="0.5", report=report, run=RUN, datasets=(DATA,), notes=notes
            ),
            mlbom=mlbom(
                **about,
                tree=tree,
                files=hashes,
                report=report,
                datasets=(DATA,),
                environment_lock=LOCK,
                created=MADE,
                notes=notes,
            ),
            evidence=envelopes,
        )
        if signer:
            sign_release(folder, key_ring.signer(signer), expect=release_id(manifest))
        return Made(folder, manifest, release_id(manifest))

    return make
