"""A small project folder that a test can write, run, edit and run again."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from falaj.facts.runs import Environment
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline

LOCK = Environment(lock="sha256:" + "0" * 64, locked=True, python="3", platform="test")


class Workshop:
    """One project and its cache. `ran`: names of steps that were executed by the last run."""

    def __init__(self, root: Path) -> None:
        self.root = root / "project"
        self.root.mkdir()
        self.blobs = FileBlobs(root / "blobs")
        self.cache = FileStepCache(root / "cache.db")
        self.told = []

    def write(self, files=None, /, **modules):
        for name, text in {**(files or {}), **{f"{m}.py": t for m, t in modules.items()}}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def edit(self, name, old, new):
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new))

    def run(self, reference="pipeline:main", *, seed=1, datasets=None, lock=LOCK, **more):
        self.told = []
        return run_pipeline(
            reference,
            root=self.root,
            parameters=more.pop("parameters", {}),
            seed=seed,
            datasets=datasets or {},
            blobs=self.blobs,
            cache=self.cache,
            codecs=codecs(),
            lock=lock,
            on_step=lambda *told: self.told.append(told),
            **more,
        )

    def value(self, outcome):
        import json

        assert outcome.error is None, outcome.error.problems
        return json.loads(self.blobs.get(outcome.result.digest))

    def states(self, outcome):
        return {step.step: step.status.value for step in outcome.steps}


@pytest.fixture
def shop(tmp_path):
    made = Workshop(tmp_path)
    yield made
    made.cache.close()
