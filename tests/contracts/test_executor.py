"""The port Executor: the same endings, told apart, in this process and in processes of their own."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from falaj.base.points import unpack
from falaj.facts.runs import Environment
from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.links.stepworker.pool import StepWorkers
from falaj.pipelines.service import run_pipeline

LOCK = Environment(lock="sha256:" + "0" * 64, locked=True, python="3", platform="test")
PROJECT = """
[project]
name = "small"
region = "ae"
[model]
name = "small"
pipeline = "pipeline:main"
task = "binary-classification"
"""
TOP = """
import ctypes, os, pathlib, signal, subprocess, sys, time
import falaj
from falaj import pipeline, step
HERE = pathlib.Path(__file__).parent
"""


class Shop:
    def __init__(self, folder: Path, kind: str) -> None:
        self.root, self.kind = folder / "project", kind
        self.root.mkdir()
        (self.root / "falaj.toml").write_text(PROJECT)
        self.blobs = FileBlobs(self.root / ".falaj" / "blobs")
        self.cache = FileStepCache(self.root / ".falaj" / "cache.db")
        self.told: list[tuple[str, str, float]] = []

    def write(self, text: str) -> None:
        (self.root / "pipeline.py").write_text(TOP + textwrap.dedent(text))

    def step(self, body: str, options: str = "", returns: str = "int") -> None:
        lines = textwrap.indent(textwrap.dedent(body), "    ")
        self.write(
            f"@step({options})\ndef a() -> {returns}:\n{lines}\n"
            f"@pipeline\ndef main() -> {returns}:\n    return a()\n"
        )

    def executor(self, at_once: int):
        if self.kind == "in process":
            return None
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        command = (sys.executable, "-m", "falaj.doors.worker.steps")
        return StepWorkers(command, at_once=at_once, environment=environment)

    def run(self, *, at_once=1, executor=None, **more):
        self.told = []
        return run_pipeline(
            "pipeline:main", root=self.root, parameters=more.pop("parameters", {}), seed=7,
            datasets={}, blobs=self.blobs, cache=self.cache, codecs=codecs(), lock=LOCK,
            executor=executor or self.executor(at_once), parallel=at_once,
            on_step=lambda *told: self.told.append(told), **more,
        )  # fmt: skip

    def log(self, outcome, index=0) -> str:
        digest = outcome.steps[index].log
        return self.blobs.get(digest).decode() if digest else ""

    def value(self, outcome):
        assert outcome.error is None, outcome.error.problems
        return json.loads(self.blobs.get(outcome.result.digest))


@pytest.fixture(params=["in process", "worker"])
def shop(request, tmp_path):
    made = Shop(tmp_path, request.param)
    yield made
    made.cache.close()


@pytest.fixture
def apart(tmp_path):
    made = Shop(tmp_path, "worker")
    yield made
    made.cache.close()


BRANCHES = """
@step
def bad() -> int:
    raise ValueError("no")
@step
def slow() -> int:
    time.sleep(SLOW)
    return 1
@step
def after(x: int) -> int:
    return x
@pipeline
def main() -> int:
    bad()
    return after(slow())
"""


def test_one_failure_lets_independent_steps_finish(shop):
    shop.write(BRANCHES.replace("SLOW", "0.2"))
    outcome = shop.run(at_once=2)
    assert [s.status.value for s in outcome.steps] == ["failed", "executed", "executed"]
    assert len(outcome.error.problems) == 1


def test_fail_fast_ends_what_runs_and_begins_nothing(shop):
    shop.write(BRANCHES.replace("SLOW", "60"))
    begun = time.monotonic()
    outcome = shop.run(at_once=2, fail_fast=True)
    assert time.monotonic() - begun < 30
    assert [s.status.value for s in outcome.steps] == ["failed", "skipped", "skipped"]
    assert [p.code for p in outcome.error.problems] == ["pipelines.step-failed"]
    assert shop.told[:3] == [(name, "planned", 0.0) for name in ("bad", "slow", "after")]


def test_an_answer_with_all_that_belongs_to_it(shop):
    shop.step(
        """
        print("said")
        print("warned", file=sys.stderr)
        falaj.log(auc=0.5)
        for i in range(3):
            falaj.log(loss=1.0 / (i + 1), step=i)
        falaj.plot("roc", {"x": [0, 1], "y": [0.0, 1.0]}, x="x", y="y")
        return falaj.seed() % 1000
        """
    )
    outcome = shop.run()
    step = outcome.steps[0]
    assert shop.value(outcome) >= 0
    assert sorted(shop.log(outcome).split()) == ["said", "warned"]
    assert outcome.metrics == {"auc": 0.5, "loss": pytest.approx(1 / 3)}
    assert step.points and set(step.plots) == {"roc"}
    assert [a.ending.value for a in step.attempts] == ["done"]
    again = shop.run()
    assert again.executed == 0 and again.metrics == outcome.metrics
    assert (again.steps[0].points, again.steps[0].plots) == (step.points, step.plots)


def test_both_make_the_same_keys_and_answers(tmp_path):
    """Else a run in a notebook and one on the command line would not share their work."""
    text = """
    import random
    @step
    def a(n: int) -> list[int]:
        return [random.randrange(1000) for _ in range(n)]
    @step
    def b(xs: list[int], *, add: int = 1) -> int:
        return sum(xs) + add
    @pipeline
    def main(n: int = 3) -> int:
        return b(a(n))
    """
    found = []
    for kind in ("in process", "worker"):
        (tmp_path / kind).mkdir()
        shop = Shop(tmp_path / kind, kind)
        shop.write(text)
        outcome = shop.run()
        assert outcome.executed == 2
        found.append([(s.key, [o.digest for o in s.outputs]) for s in outcome.steps])
        shop.kind = "worker" if kind == "in process" else "in process"
        assert shop.run().executed == 0
        shop.cache.close()
    assert found[0] == found[1]


ENDINGS = {  # body -> code, words
    "an exception": ("raise ValueError('boom')", "pipelines.step-failed", "a: ValueError: boom"),
    "sys.exit": ("sys.exit(3)", "pipelines.step-failed", "called exit with 3"),
    "no memory": ("raise MemoryError('full')", "pipelines.step-failed", "MemoryError: full"),
    "wrong type": ("return 'text'", "pipelines.answer-type", "Expected `int`"),
}
APART = {
    "os._exit": ("os._exit(3)", "pipelines.step-lost", "exit code 3"),
    "kill -9": ("os.kill(os.getpid(), signal.SIGKILL)", "pipelines.step-lost", "SIGKILL"),
    "abort": ("os.abort()", "pipelines.step-lost", "SIGABRT"),
    "segfault": ("ctypes.string_at(0)", "pipelines.step-lost", "SIGSEGV"),
}


@pytest.mark.parametrize(("body", "code", "words"), ENDINGS.values(), ids=ENDINGS)
def test_endings_with_an_answer(shop, body, code, words):
    shop.step(f"print('before')\n{body}")
    outcome = shop.run()
    assert outcome.error is not None and outcome.error.code == code
    assert words in str(outcome.error)
    problem = outcome.error.problems[0]
    assert problem.place.file == "pipeline.py"
    assert shop.log(outcome).startswith("before\n")
    assert "falaj/" not in f"{problem.message}{problem.why}"


@pytest.mark.parametrize(("body", "code", "words"), APART.values(), ids=APART)
def test_endings_that_take_the_process_along(apart, body, code, words):
    """The run goes on, in a new process; the old one left nothing behind."""
    apart.write(
        f"""
        @step(retries=0)
        def a() -> int:
            print("before", os.getpid())
            subprocess.Popen(["sleep", "1000"])
            {body}
            return 1
        @step
        def b() -> int:
            return 2
        @pipeline
        def main() -> int:
            a()
            return b()
        """
    )
    outcome = apart.run()
    assert outcome.error is not None and outcome.error.code == code
    assert words in str(outcome.error)
    assert outcome.steps[1].status.value == "executed"
    assert_nothing_left(int(apart.log(outcome).split()[1]))


LATE = {
    "endless sleep": "time.sleep(1000)",
    "endless child": "subprocess.run(['sleep', '1000'])",
    "deaf to requests": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)",
}


@pytest.mark.parametrize("body", LATE.values(), ids=LATE)
def test_a_step_that_is_late_is_ended_with_its_children(apart, body):
    apart.step(f"print(os.getpid())\n{body}\nreturn 1", "timeout='1s'")
    begun = time.monotonic()
    outcome = apart.run()
    assert time.monotonic() - begun < 20
    assert outcome.error is not None and outcome.error.code == "pipelines.step-timeout"
    assert len(outcome.steps[0].attempts) == 1
    assert_nothing_left(int(apart.log(outcome).split()[0]))


def assert_nothing_left(group: int) -> None:
    """No process of that session runs any more."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(stat.parent.name)
        if not found:
            return
        time.sleep(0.05)
    raise AssertionError(f"left behind: {found}")


def test_a_child_that_a_finished_step_left_is_ended_with_the_run(apart):
    apart.step("subprocess.Popen(['sleep', '1000'])\nreturn os.getpid()")
    assert_nothing_left(apart.value(apart.run()))


def test_a_lost_worker_is_tried_again_and_each_attempt_has_its_log(apart):
    apart.step(
        """
        mark = HERE / "mark"
        print("first" if not mark.exists() else "second")
        if not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return 1
        """
    )
    outcome = apart.run()
    assert apart.value(outcome) == 1
    first, second = outcome.steps[0].attempts
    assert (first.ending.value, second.ending.value) == ("lost", "done")
    assert apart.blobs.get(first.log) == b"first\n" and apart.blobs.get(second.log) == b"second\n"
    assert ("a", "retried") in [told[:2] for told in apart.told]


def test_listed_exceptions_are_tried_again(shop):
    shop.step(
        "mark = HERE / 'mark'\nif not mark.exists():\n    mark.write_text('')\n"
        "    raise OSError('weather')\nreturn 1",
        "retries=1, retry_on=[OSError]",
    )
    outcome = shop.run()
    assert shop.value(outcome) == 1
    assert [a.reason for a in outcome.steps[0].attempts] == ["OSError: weather", ""]


def test_a_warm_process_is_used_again_and_an_isolated_step_gets_its_own(apart):
    apart.write(
        """
        @step
        def a() -> int:
            return os.getpid()
        @step
        def b(x: int) -> list[int]:
            return [x, os.getpid()]
        @step(isolate=True)
        def c(xs: list[int]) -> list[int]:
            return [*xs, os.getpid()]
        @pipeline
        def main() -> list[int]:
            return c(b(a()))
        """
    )
    first, second, own = apart.value(apart.run())
    assert first == second != own
    assert os.getpid() not in (first, own)


def test_what_c_code_prints_is_kept_and_no_print_breaks_the_protocol(apart):
    apart.step(
        """
        ctypes.CDLL(None).puts(b"from C")
        os.write(1, b"raw\\n")
        subprocess.run(["echo", "from a child"])
        print('{"ending": "done"}')
        return 1
        """
    )
    outcome = apart.run()
    assert apart.value(outcome) == 1
    lines = set(apart.log(outcome).splitlines())
    assert lines == {"from C", "raw", "from a child", '{"ending": "done"}'}


def test_output_without_end_keeps_head_and_tail(apart):
    apart.step(
        "print('head')\nfor _ in range(24):\n    print('x' * 1_000_000)\nprint('tail')\nreturn 1"
    )
    outcome = apart.run()
    log = apart.log(outcome)
    assert apart.value(outcome) == 1
    assert log.startswith("head\n") and log.endswith("tail\n") and "bytes left out" in log
    assert len(log) <= 11_000_000


def test_independent_steps_run_at_the_same_time(apart):
    """Each waits for a sign that only the other one gives."""
    apart.write(
        """
        def meet(mine: str, other: str) -> int:
            (HERE / mine).write_text("")
            end = time.monotonic() + 30
            while not (HERE / other).exists():
                if time.monotonic() > end:
                    raise TimeoutError("alone")
                time.sleep(0.02)
            return 1
        @step
        def a() -> int:
            return meet("a", "b")
        @step
        def b() -> int:
            return meet("b", "a")
        @step
        def both(x: int, y: int) -> int:
            return x + y
        @pipeline
        def main() -> int:
            return both(a(), b())
        """
    )
    outcome = apart.run(at_once=2)
    assert apart.value(outcome) == 2
    assert [s.step for s in outcome.steps] == ["a", "b", "both"]


def test_cpu_that_a_step_takes_holds_others_back(apart):
    apart.write(
        """
        def alone(mine: str) -> int:
            (HERE / mine).write_text("")
            time.sleep(0.3)
            found = len(list(HERE.glob("busy-*")))
            (HERE / mine).unlink()
            return found
        @step(resources={"cpu": 2})
        def a() -> int:
            return alone("busy-a")
        @step(resources={"cpu": 2})
        def b() -> int:
            return alone("busy-b")
        @step
        def both(x: int, y: int) -> int:
            return x + y
        @pipeline
        def main() -> int:
            return both(a(), b())
        """
    )
    outcome = apart.run(at_once=2)
    assert apart.value(outcome) == 2
    assert outcome.steps[0].resources == {"cpu": 2}


def test_code_that_was_edited_after_the_plan_is_not_run(apart):
    """The key names code; what runs must be that code."""
    apart.write(
        """
        @step
        def a() -> int:
            return 1
        @pipeline
        def main() -> int:
            return a()
        """
    )
    pool = apart.executor(1)

    class Late:
        at_once = 1

        def run(self, order):
            apart.write(
                "@step\ndef a() -> int:\n    return 2\n@pipeline\ndef main() -> int:\n    return a()\n"
            )
            return pool.run(order)

        def close(self):
            pool.close()

    outcome = apart.run(executor=Late())
    assert outcome.error is not None and outcome.error.code == "pipelines.project-changed"
    assert "pipeline.py was edited" in str(outcome.error)


def test_closing_ends_what_runs(apart):
    apart.step("(HERE / 'on').write_text(str(os.getpid()))\ntime.sleep(1000)\nreturn 1")
    pool = apart.executor(1)

    def close():
        end = time.monotonic() + 30
        while not (apart.root / "on").exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.1)
        pool.close()

    thread = threading.Thread(target=close)
    thread.start()
    outcome = apart.run(executor=pool)
    thread.join()
    assert outcome.error is not None and outcome.error.code == "pipelines.step-lost"
    assert_nothing_left(int((apart.root / "on").read_text()))
    pool.close()


def test_a_worker_whose_run_was_killed_does_not_stay(apart):
    """kill -9 of the one who gave the order: nobody else would ever end the step."""
    import subprocess

    apart.step("(HERE / 'on').write_text(str(os.getpid()))\ntime.sleep(1000)\nreturn 1")
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_executor import Shop\n"
        "shop = Shop.__new__(Shop); shop.root = Path(sys.argv[1]); shop.kind = 'worker'\n"
        "from falaj.links.files.blobs import FileBlobs\n"
        "from falaj.links.stepcache.cache import FileStepCache\n"
        "shop.blobs = FileBlobs(shop.root / '.falaj' / 'blobs')\n"
        "shop.cache = FileStepCache(shop.root / '.falaj' / 'cache.db')\n"
        "shop.run()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(apart.root), str(Path(__file__).parent)]
    )
    end = time.monotonic() + 60
    while not (apart.root / "on").exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.2)
    child.kill()
    child.wait()
    assert_nothing_left(int((apart.root / "on").read_text()))


SAYING = """
    for i in range(3):
        falaj.log(loss=1.0 / (i + 1), step=i)
    falaj.log(alone=7.0)
    until = time.monotonic() + 20
    while not (HERE / "heard").exists() and time.monotonic() < until:
        time.sleep(0.02)
    falaj.log(loss=0.1, step=3)
"""


class Listener:
    """Hears what a step says, and lets it go on when it has heard three points."""

    def __init__(self, root):
        self.root, self.values, self.metrics = root, [], {}

    def __call__(self, metrics, lines):
        self.metrics |= metrics
        for line in lines:
            assert len(line.steps) == len(line.times) == len(line.values)
            self.values += zip([line.name] * len(line.steps), line.steps, line.values, strict=True)
        if len(self.values) >= 3:
            (self.root / "heard").touch()


def test_a_step_is_heard_while_it_runs(shop):
    shop.step(SAYING + "    return len(list(HERE.glob('heard')))")
    listener = Listener(shop.root)
    outcome = shop.run(on_said=listener)
    assert shop.value(outcome) == 1, "nothing was heard while it ran"
    assert listener.values[:3] == [("loss", 0, 1.0), ("loss", 1, 0.5), ("loss", 2, 1 / 3)]
    assert listener.metrics["alone"] == 7.0
    (line,) = unpack(shop.blobs.get(outcome.steps[0].points))
    assert list(line.steps) == [0, 1, 2, 3] and outcome.metrics == {"loss": 0.1, "alone": 7.0}


LOSSES = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "", "lost"),
    "out of time": ("time.sleep(1000)", "timeout='6s'", "timeout"),
}


@pytest.mark.parametrize(("body", "options", "ending"), LOSSES.values(), ids=LOSSES)
def test_what_was_heard_of_a_lost_process_is_kept(apart, body, options, ending):
    apart.step(f"{SAYING}    {body}\n    return 1", options)
    listener = Listener(apart.root)
    outcome = apart.run(on_said=listener)
    (step,) = outcome.steps
    assert step.status.value == "failed" and step.attempts[-1].ending.value == ending
    (line,) = unpack(apart.blobs.get(step.points))
    assert list(line.steps)[:3] == [0, 1, 2] and step.metrics["alone"] == 7.0
    assert outcome.metrics["alone"] == 7.0


def test_many_points_a_second_arrive_whole(shop):
    """Half of them are told while the step goes on writing."""
    shop.step(
        """
        until = time.monotonic() + 2.2
        i = 0
        while time.monotonic() < until:
            for _ in range(2000):
                falaj.log(a=float(i), b=-float(i), step=i)
                i += 1
        return i
        """
    )
    listener = Listener(shop.root)
    outcome = shop.run(on_said=listener)
    count = shop.value(outcome)
    whole = {line.name: line for line in unpack(shop.blobs.get(outcome.steps[0].points))}
    assert list(whole["a"].steps) == list(range(count)) == list(whole["b"].steps)
    for name, sign in (("a", 1.0), ("b", -1.0)):
        heard = [(at, value) for said, at, value in listener.values if said == name]
        assert heard == [(at, sign * at) for at in range(len(heard))] and len(heard) > 1000
