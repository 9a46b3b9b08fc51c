"""Whole runs: what is executed, kept, told, and restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from falaj.facts.runs import Environment, Run, RunStatus
from falaj.facts.wire import decode, encode
from falaj.pipelines.rules import Ending, may_retry, why_reruns

CHAIN = """
import random
from typing import NamedTuple

import numpy as np
import polars as pl

import falaj
from falaj import pipeline, step


class Split(NamedTuple):
    train: pl.DataFrame
    test: pl.DataFrame


@step
def load(n: int) -> pl.DataFrame:
    print("loading", n)
    return pl.DataFrame({"x": np.random.random(n), "k": range(n)})


@step
def split(rows: pl.DataFrame, *, share: float = 0.5) -> Split:
    cut = int(rows.height * share)
    return Split(rows[:cut], rows[cut:])


@step
def fit(train: pl.DataFrame, *, depth: int = 6) -> dict[str, float]:
    falaj.log(auc=0.7)
    falaj.log(loss=0.3, step=1)
    falaj.log(loss=0.2, step=2)
    return {"w": float(train["x"].sum()), "d": depth}


@step
def score(w: dict[str, float], test: pl.DataFrame) -> float:
    return w["w"] * test["x"].sum()


@pipeline
def main(n: int = 10, depth: int = 6) -> float:
    parts = split(load(n))
    return score(fit(parts.train, depth=depth), parts.test)
"""


def test_a_second_run_hits_and_shows_the_same(shop):
    shop.write(pipeline=CHAIN)
    first = shop.run(run="run-1")
    assert first.executed == 4 and first.metrics == {"auc": 0.7, "loss": 0.2}
    again = shop.run(run="run-2")
    assert set(shop.states(again).values()) == {"cached"}
    assert again.result == first.result and again.metrics == first.metrics
    assert [s.outputs for s in again.steps] == [s.outputs for s in first.steps]
    assert {s.origin for s in again.steps} == {"run-1"}
    assert shop.blobs.get(first.steps[0].log) == b"loading 10\n"
    assert again.steps[0].log == first.steps[0].log


def test_only_what_depends_on_a_parameter_reruns(shop):
    shop.write(pipeline=CHAIN)
    shop.run()
    after = shop.run(parameters={"depth": 7})
    assert shop.states(after) == {
        "load": "cached", "split": "cached", "fit": "executed", "score": "executed",
    }  # fmt: skip
    assert after.steps[2].why == "parameter depth: 6 -> 7"
    assert after.steps[3].why == "input w changed"


def test_steps_are_recorded_as_facts(shop):
    shop.write(pipeline=CHAIN)
    outcome = shop.run()
    run = Run(
        id="r", project="p", pipeline="pipeline:main", parameters=outcome.parameters, seed=1,
        principal="me", status=RunStatus.OK, started=outcome.steps[0].started,
        steps=outcome.steps, metrics=outcome.metrics, result=outcome.result,
    )  # fmt: skip
    assert decode(Run, encode(run)) == run
    assert [told for told in shop.told if told[1] != "planned"][:2] == [
        ("load", "running", 0.0),
        ("load", "executed", outcome.steps[0].seconds),
    ]


def test_seeds_are_per_step_and_come_back(shop):
    import random

    shop.write(pipeline=CHAIN)
    random.seed(5)
    before = random.getstate()
    first = shop.run(seed=1)
    assert random.getstate() == before
    other = shop.run(seed=2)
    assert other.result != first.result and other.executed == 4
    assert shop.run(seed=1).executed == 0


LATE = """
import sys
from falaj.pipelines.seeds import seeded

def number():
    with seeded(int(sys.argv[1])):
        import numpy as np
        return np.random.random()

with seeded(1):
    assert "numpy" not in sys.modules, "who has no use for it does not pay for it"
first = number()
assert number() == first, "loaded late or before: one seed, one number"
import numpy as np
assert np.random.random() != np.random.RandomState(int(sys.argv[1])).random_sample(2)[1]
print(first)
"""


def test_what_a_step_imports_late_is_seeded_too():
    said = [
        subprocess.run(
            [sys.executable, "-c", LATE, seed], capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "1", "2")
    ]
    assert said[0] == said[1] != said[2]


PARTS = {
    "lock": {"lock": Environment(lock="sha256:" + "1" * 64, platform="test")},
    "seed": {"seed": 9},
    "project": {"project_name": "another"},
}


def test_environment_seed_and_project_are_part_of_the_key(shop):
    shop.write(pipeline=CHAIN)
    shop.run()
    for name, change in PARTS.items():
        assert shop.run(**change).executed == 4, name
    assert shop.run().executed == 0


def test_declared_files_and_variables_are_part_of_the_key(shop, monkeypatch):
    shop.write(
        {
            "pipeline.py": "import os\nfrom falaj import pipeline, step\n"
            "@step(reads=['q/*.sql'], env=['FALAJ_TEST_ZONE'])\ndef a() -> str:\n"
            "    return os.environ.get('FALAJ_TEST_ZONE', '-')\n"
            "@pipeline\ndef main() -> str:\n    return a()\n",
            "q/one.sql": "select 1",
        }
    )
    assert shop.value(shop.run()) == "-"
    assert shop.run().executed == 0
    monkeypatch.setenv("FALAJ_TEST_ZONE", "ae")
    outcome = shop.run()
    assert (
        shop.value(outcome) == "ae" and outcome.steps[0].why == "variable FALAJ_TEST_ZONE changed"
    )
    assert "ae" not in json.dumps(outcome.steps[0].parts["env"])
    shop.write({"q/one.sql": "select 2"})
    assert shop.run().steps[0].why == "file q/one.sql changed"
    shop.write({"q/two.sql": "select 3"})
    assert shop.run().steps[0].why == "file q/two.sql is new"


def test_explain_runs_nothing_and_says_why(shop):
    shop.write(
        {
            "pipeline.py": CHAIN.replace("import falaj\n", "import falaj\nfrom acme.clean import scale\n")
            .replace("float(train", "scale(train"),
            "acme/__init__.py": "",
            "acme/clean.py": "from acme.rates import RATE\ndef scale(x): return x * RATE\n",
            "acme/rates.py": "RATE = 2\n",
        }
    )  # fmt: skip
    assert {s.why for s in shop.run(explain=True).steps} == {"reruns: first run of this step"}
    assert shop.told == []
    shop.run()
    assert {s.why for s in shop.run(explain=True).steps} == {"cached"}
    shop.edit("acme/rates.py", "2", "3")
    told = shop.run(explain=True, parameters={})
    assert told.steps[2].why == (
        "reruns: acme/rates.py changed (name RATE), imported by pipeline.py -> acme/clean.py"
    )
    assert shop.run().executed == 4


def test_explain_names_the_input_that_reruns(shop):
    shop.write(pipeline=CHAIN)
    shop.run()
    told = [s.why for s in shop.run(explain=True, parameters={"n": 12}).steps]
    assert told == [
        "reruns: parameter n: 10 -> 12",
        "reruns: an input comes from load, which reruns",
        "reruns: an input comes from split, which reruns",
        "reruns: an input comes from fit, which reruns",
    ]


def test_a_step_that_must_always_run(shop):
    shop.write(
        pipeline="from falaj import pipeline, step\n@step(cache=False)\ndef a() -> int:\n    return 1\n"
        "@step\ndef b(x: int) -> int:\n    return x\n@pipeline\ndef main() -> int:\n    return b(a())\n"
    )
    shop.run()
    assert shop.states(shop.run()) == {"a": "executed", "b": "cached"}


def test_a_step_that_changes_its_input_changes_its_own_copy(shop):
    shop.write(
        pipeline="import polars as pl\nimport numpy as np\nfrom falaj import pipeline, step\n"
        "@step\ndef make() -> dict[str, list[int]]:\n    return {'x': [1]}\n"
        "@step\ndef spoil(d: dict[str, list[int]]) -> int:\n    d['x'].append(2)\n    return len(d['x'])\n"
        "@step\ndef look(d: dict[str, list[int]], n: int) -> dict[str, list[int]]:\n    return d\n"
        "@pipeline\ndef main() -> dict[str, list[int]]:\n    d = make()\n    return look(d, spoil(d))\n"
    )
    cold = shop.run()
    assert shop.value(cold) == {"x": [1]}
    assert shop.run().result == cold.result


def test_a_parameter_that_is_changed_inside_is_not_changed_outside(shop):
    shop.write(
        pipeline="from falaj import pipeline, step\n@step(cache=False)\n"
        "def a(xs: list[int] = [1]) -> int:\n    xs.append(2)\n    return len(xs)\n"
        "@step\ndef b(x: int, y: int) -> int:\n    return 10 * x + y\n"
        "@pipeline\ndef main() -> int:\n    return b(a(), a())\n"
    )
    assert shop.value(shop.run()) == 22


FAILING = """
import polars as pl
from falaj import pipeline, step
from lib import check

@step
def load() -> pl.DataFrame:
    return pl.DataFrame({"x": [1, 2]})

@step
def train(rows: pl.DataFrame, *, depth: int = 6) -> int:
    print("before the end")
    return check(rows, depth)

@step
def other(rows: pl.DataFrame) -> int:
    return rows.height

@step
def last(n: int) -> int:
    return n

@pipeline
def main() -> int:
    rows = load()
    found = train(rows)
    other(rows)
    return last(found)
"""
LIB = "def check(rows, depth):\n    secret = 'patient 7'\n    raise ValueError('boom')\n"


def test_a_failure_names_the_users_line_first_and_never_ours(shop):
    shop.write(pipeline=FAILING, lib=LIB)
    outcome = shop.run()
    error = outcome.error
    assert error is not None and error.code == "pipelines.step-failed"
    problem = error.problems[0]
    assert problem.message == "train: ValueError: boom"
    assert (problem.place.file, problem.place.line) == ("pipeline.py", 13)
    assert problem.place.note == "in train"
    assert problem.place.excerpt == ((13, "return check(rows, depth)"),)
    lines = problem.why.splitlines()
    assert lines[0] == "lib.py:3 in check  raise ValueError('boom')"
    assert "depth = 6" in problem.why and "2 rows" in problem.why
    whole = f"{problem.message}\n{problem.place}\n{problem.why}\n{problem.fix}"
    assert (
        len(whole.splitlines()) <= 16 and whole.count("boom") == 2
    )  # the message, the line of code
    assert "falaj/pipelines" not in whole and "patient 7" not in whole
    assert outcome.result is None


def test_after_a_failure_the_rest_finishes_and_is_kept(shop):
    shop.write(pipeline=FAILING, lib=LIB)
    outcome = shop.run()
    assert shop.states(outcome) == {
        "load": "executed", "train": "failed", "other": "executed", "last": "skipped",
    }  # fmt: skip
    assert outcome.steps[3].why == "needs train, which did not finish"
    log = shop.blobs.get(outcome.steps[1].log).decode()
    assert log.startswith("before the end\n") and "ValueError: boom" in log
    shop.write(lib="def check(rows, depth):\n    return depth\n")
    mended = shop.run()
    assert shop.value(mended) == 6
    assert shop.states(mended)["other"] == "executed"  # its file imports lib at the top


ENDINGS = {
    "exit": ("raise SystemExit(3)", "pipelines.step-failed", "called exit with 3"),
    "wrong type": ("return 'text'", "pipelines.answer-type", "Expected `int`"),
    "nothing": ("return None", "pipelines.answer-type", "Expected `int`"),
    "too late": ("import time; time.sleep(5)", "pipelines.step-timeout", "not finished"),
    "swallows all": (
        "import time\n    try:\n        time.sleep(5)\n    except Exception:\n        return 1",
        "pipelines.step-timeout",
        "not finished",
    ),
}


def test_other_endings_are_told_apart(shop):
    for name, (body, code, words) in ENDINGS.items():
        shop.write(
            pipeline="from falaj import pipeline, step\n@step(timeout='100ms')\ndef a() -> int:\n"
            f"    {body}\n@pipeline\ndef main() -> int:\n    return a()\n"
        )
        error = shop.run().error
        assert error is not None and error.code == code, name
        assert words in str(error), name
        assert error.problems[0].place.file == "pipeline.py"


def test_listed_exceptions_are_tried_again(shop):
    shop.write(
        pipeline="import pathlib\nfrom falaj import pipeline, step\n"
        "@step(retries=2, retry_on=[OSError])\ndef a(at: str) -> int:\n"
        "    p = pathlib.Path(at)\n    n = int(p.read_text()) + 1\n    p.write_text(str(n))\n"
        "    if n < 2:\n        raise OSError('weather')\n    return n\n"
        "@pipeline\ndef main(at: str) -> int:\n    return a(at)\n"
    )
    count = shop.root / "count"
    count.write_text("0")
    assert shop.value(shop.run(parameters={"at": str(count)})) == 2


def test_an_edit_is_seen_at_once_in_the_same_process(shop):
    """Within one second and with equal size Python's own bytecode cache would show the old one."""
    shop.write(
        pipeline="from lib import K\nfrom falaj import pipeline, step\n@step\ndef a() -> int:\n"
        "    return K\n@pipeline\ndef main() -> int:\n    return a()\n",
        lib="K = 1\n",
    )
    for k in range(1, 6):
        shop.write(lib=f"K = {k}\n")
        assert shop.value(shop.run()) == k


def blob_path(shop, digest):
    hexed = digest.removeprefix("sha256:")
    return shop.blobs.folder / hexed[:2] / hexed[2:]


def test_an_altered_artifact_is_made_again(shop):
    shop.write(pipeline=CHAIN)
    first = shop.run()
    path = blob_path(shop, first.steps[1].outputs[0].digest)
    path.chmod(0o644)
    path.write_bytes(b"PAR1 something else PAR1")
    again = shop.run()
    assert shop.states(again) == {
        "load": "cached", "split": "executed", "fit": "cached", "score": "cached",
    }  # fmt: skip
    assert again.result == first.result
    path.unlink()
    assert shop.run(parameters={"depth": 7}).error is None
    assert shop.run().executed == 0


def test_early_cutoff_by_value_not_by_bytes(shop):
    shop.write(
        pipeline="import polars as pl\nfrom falaj import pipeline, step\n@step\n"
        "def a() -> pl.DataFrame:\n    return pl.DataFrame({'x': [1, 2, 3]})\n"
        "@step\ndef b(rows: pl.DataFrame) -> int:\n    return rows['x'].sum()\n"
        "@pipeline\ndef main() -> int:\n    return b(a())\n"
    )
    shop.run()
    shop.edit("pipeline.py", "return pl.DataFrame({'x': [1, 2, 3]})",
              "f = pl.DataFrame({'x': [1]})\n    return pl.concat([f, f + 1, f + 2], rechunk=False)")  # fmt: skip
    assert shop.states(shop.run()) == {"a": "executed", "b": "cached"}
    shop.edit("pipeline.py", "rechunk=False)", "rechunk=False).cast(pl.Int8)")
    after = shop.run()
    assert shop.states(after) == {"a": "executed", "b": "executed"}, "a narrower type may overflow"


PROGRAM = """
import sys
from pathlib import Path
from falaj.facts.runs import Environment
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline

root = Path(sys.argv[1])
outcome = run_pipeline(
    "pipeline:main", root=root / "project", parameters={}, seed=1, datasets={},
    blobs=FileBlobs(root / "blobs"), cache=FileStepCache(root / "cache.db"), codecs=codecs(),
    lock=Environment(lock="sha256:" + "0" * 64, locked=True, python="3", platform="test"),
)
print(" ".join(f"{s.step}={s.status.value}" for s in outcome.steps))
"""


def started(shop, *, wait=True):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(shop.root.parent)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return child.communicate(timeout=60)[0].strip() if wait else child


SLOW = """
import time
from pathlib import Path
from falaj import pipeline, step

HERE = Path(__file__).parent

def mark(name):
    with (HERE / "marks").open("a") as file:
        file.write(name + "\\n")

@step
def one() -> int:
    mark("one")
    return 1

@step
def two(x: int) -> int:
    mark("two")
    time.sleep({seconds})
    return x + 1

@pipeline
def main() -> int:
    return two(one())
"""


def marks(shop):
    path = shop.root / "marks"
    return path.read_text().split() if path.exists() else []


def until(check, seconds=30.0):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_killed_in_the_middle_a_rerun_takes_finished_steps_from_the_cache(shop):
    shop.write({"pipeline.py": SLOW.replace("{seconds}", "30 if len(HERE.joinpath('marks').read_text().split()) == 2 else 0")})  # fmt: skip
    child = started(shop, wait=False)
    until(lambda: marks(shop) == ["one", "two"])
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=10)
    begun = time.monotonic()
    outcome = shop.run()
    assert shop.states(outcome) == {"one": "cached", "two": "executed"}
    assert marks(shop) == ["one", "two", "two"]
    assert time.monotonic() - begun < 20, "the claim of a dead process is taken over at once"


def test_two_runs_at_once_execute_each_step_once(shop):
    shop.write({"pipeline.py": SLOW.replace("{seconds}", "1")})
    children = [started(shop, wait=False) for _ in range(2)]
    told = sorted(child.communicate(timeout=60)[0].strip() for child in children)
    assert sorted(marks(shop)) == ["one", "two"]
    assert sum(text.count("two=executed") for text in told) == 1
    assert sum(text.count("two=cached") for text in told) == 1


def test_names_of_the_author_are_lazy_and_cheap():
    code = (
        "import sys; old = set(sys.modules); import falaj; print(*sorted(set(sys.modules) - old))"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert len(found) <= 60
    assert not {"polars", "numpy", "sqlalchemy", "litestar", "msgspec"} & set(found)
    import falaj

    names = {
        "Dataset",
        "check",
        "evidence",
        "features",
        "Model",
        "Picture",
        "keep",
        "log",
        "map",
        "pipeline",
        "plot",
        "seed",
        "split",
        "Split",
        "step",
        "when",
    }
    assert set(dir(falaj)) == names
    for name in dir(falaj):
        assert getattr(falaj, name) is not None
    text = Path(falaj.__file__).read_text()
    assert "import" in text and not hasattr(falaj, "nonsense")


RETRIES = {  # ending, attempt, retries, listed -> again
    "an exception is not tried again": (Ending.RAISED, 1, 1, False, False),
    "a listed exception is": (Ending.RAISED, 1, 1, True, True),
    "never beyond the retries": (Ending.RAISED, 2, 1, True, False),
    "a lost worker is tried again": (Ending.LOST, 1, 1, False, True),
    "a wrong answer is wrong again": (Ending.BAD_ANSWER, 1, 5, True, False),
    "a timeout is not": (Ending.TIMEOUT, 1, 5, False, False),
    "no retries, no retry": (Ending.LOST, 1, 0, False, False),
}


def test_retry_rules():
    for name, (ending, attempt, retries, listed, again) in RETRIES.items():
        assert may_retry(ending, attempt=attempt, retries=retries, listed=listed) is again, name


def parts(**more):
    return {"parts": {"code": {"a.py": "1"}, "params": {}, "seed": "1", **more}}


WHY = {
    "first run": (None, parts(), "first run of this step"),
    "equal": (parts(), parts(), "its entry was removed, or its bytes were altered"),
    "seed": (parts(), parts(seed="2"), "seed changed"),
    "param": (
        parts(params={"d": 6}),
        parts(params={"d": {"float": "7.0"}}),
        "parameter d: 6 -> 7.0",
    ),
    "param is new": (parts(), parts(params={"d": 6}), "parameter d is new"),
    "code comes first": (parts(), parts(code={"a.py": "2"}, seed="2"), "a.py changed"),
    "file is new": (parts(), parts(code={"a.py": "1", "b.py": "1"}), "b.py is new"),
    "file is gone": (parts(), parts(code={}), "a.py is no longer imported"),
}


def test_reasons_in_words():
    for name, (old, new, words) in WHY.items():
        assert why_reruns(old, new) == words, name


def test_facts_in_entries_are_plain(shop):
    shop.write(pipeline=CHAIN)
    outcome = shop.run()
    entry = shop.cache.get(outcome.steps[0].key)
    assert json.loads(json.dumps(entry)) == entry
    assert msgspec.json.encode(outcome.steps[0])
