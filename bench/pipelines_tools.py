"""The same plain functions as a project of each tool, in its documented way, nothing tuned."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.harness import QUIET, ours, peer

# A step can be told to wait, to fail, and where to say that it ran.
HELPERS = """
import os
import time

K = 1


def act(number, x):
    ran(f"s{number}")
    time.sleep(float(os.environ.get("SLOW", "0")))
    if os.environ.get("FAIL") == str(number):
        raise ValueError(f"boom in step {number}")
    return inc(x)


def ran(name):
    if "TRACE" in os.environ:
        with open(os.environ["TRACE"], "a") as trace:
            trace.write(name + "\\n")


def inc(x):
    return x + K


def frame(rows):
    import polars as pl

    n = pl.int_range(rows, eager=True)
    columns = {f"f{i}": ((n * (7919 + 2 * i)) % 10007) / 10007 for i in range(6)}
    seconds = pl.datetime(2024, 1, 1) + pl.duration(seconds=(pl.col("i") * 31) % 1_000_000)
    return (
        pl.DataFrame({**columns, "i": n, "k": (n * 7907) % 100})
        .with_columns(("name-" + ((pl.col("i") * 17) % 1000).cast(pl.String)).alias("s"))
        .with_columns(seconds.alias("t"))
    )


def scaled(rows):
    import polars as pl

    return rows.with_columns((pl.col(f"f{i}") * 2 - 1).alias(f"f{i}") for i in range(6))


def kept(rows):
    import polars as pl

    return rows.filter(pl.col("k") < 90).with_columns((pl.col("f0") + pl.col("f1")).alias("f5"))
"""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Functions s0, s1, .. of one argument x each; every one gets the answer of the one before.

    bodies: their lines. kinds: what x is for each, and what the last one answers.
    imports: lines on top of the steps' file. files: other modules.
    """

    bodies: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    imports: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def kind(self, number: int) -> str:
        return self.kinds[number] if self.kinds else "int"

    def functions(self, above: str = "", *, named_inputs: bool = False) -> str:
        """Their source. above: a decorator. named_inputs: the argument is called as the step before."""
        lines = [self.imports]
        for number, body in enumerate(self.bodies):
            got, kind = "x", f"{self.kind(number)}"
            if named_inputs and number:
                got, body = f"s{number - 1}", f"x = s{number - 1}\n{body}"  # noqa: PLW2901 the form asked for
            inner = "\n".join(f"    {line}" for line in body.splitlines())
            lines.append(
                f"{above}def s{number}({got}: {kind}) -> {self.kind(number + 1)}:\n{inner}\n\n"
            )
        return "\n".join(lines)

    def calls(self) -> str:
        """One after the other, inside a function that has x."""
        return "".join(f"    x = s{number}(x)\n" for number in range(len(self.bodies)))


def counting(steps: int) -> Chain:
    """Steps that add one."""
    bodies = tuple(f"return act({number}, x)" for number in range(steps))
    return Chain(bodies=bodies, imports="from helpers import act\n")


def frames() -> Chain:
    """A frame of x rows and ten columns, made and changed twice."""
    return Chain(
        bodies=("return frame(x)", "return scaled(x)", "return kept(x)"),
        kinds=("int", *3 * ("pl.DataFrame",)),
        imports="import polars as pl\n\nfrom helpers import frame, kept, scaled\n",
    )


@dataclass(frozen=True)
class Tool:
    """A tool, its environment and how it is used.

    mode: what was done, in the tool's own words. caches: False when the mode has no cache.
    records: what is left of a run. write: makes the project. command: runs it with one x.
    once: commands after the files are written. answer: the result, from what was printed.
    """

    name: str
    package: str
    mode: str
    caches: bool
    records: str
    write: Callable[[Path, Chain], None]
    command: Callable[[Path, int], list[str | Path]]
    home: Callable[[], Path]
    once: tuple[tuple[str, ...], ...] = ()
    before: Callable[[Path, int], None] | None = None
    answer: Callable[[Path, str], str] | None = None
    quiet: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False

    @property
    def bin(self) -> Path:
        return self.home()

    def environment(self, home: Path) -> dict[str, str]:
        path = os.pathsep.join((str(self.bin), "/usr/bin", "/bin"))
        return {**QUIET, **NO_WAY_OUT, "HOME": str(home), "PATH": path, "USER": "bench"} | dict(
            self.quiet
        )

    def project(self, folder: Path, home: Path, chain: Chain) -> None:
        """Make the project in a new folder."""
        folder.mkdir(parents=True)
        home.mkdir(parents=True, exist_ok=True)
        files(folder, {"helpers.py": HELPERS, **chain.files})
        self.write(folder, chain)
        for words in self.once:
            done = subprocess.run(
                [self.bin / words[0], *words[1:]],
                cwd=folder,
                env=self.environment(home),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{self.name}: {done.stdout[-500:]}{done.stderr[-500:]}")

    def result(self, folder: Path, said: str) -> str:
        if self.answer is not None:
            return self.answer(folder, said)
        found = [line for line in said.splitlines() if line.startswith("RESULT ")]
        return found[-1].removeprefix("RESULT ") if found else "nothing"


# What does not listen to its switches meets a closed door.
NO_WAY_OUT = {
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


def files(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


SHOWN = "print('RESULT', x.height if hasattr(x, 'height') else x)\n"

# -- ours --------------------------------------------------------------------------------------

SETTINGS = """
[project]
name = "bench"
region = "ae"

[model]
name = "bench"
pipeline = "pipeline:main"
task = "binary-classification"

[gates.quality]
metric = "roc_auc"
at_least = 0.5
"""

LIBRARY = """
import sys
from pathlib import Path

from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.python.environment import read_environment
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline

here = Path.cwd()
blobs = FileBlobs(here / ".falaj" / "blobs")
done = run_pipeline(
    "pipeline:main",
    root=here,
    parameters={"x": int(sys.argv[1])},
    seed=0,
    datasets={},
    blobs=blobs,
    cache=FileStepCache(here / ".falaj" / "cache.db"),
    codecs=codecs(),
    lock=read_environment(here)[0],
)
if done.error:
    raise SystemExit(str(done.error))
print("RESULT", done.result.rows or blobs.get(done.result.digest).decode())
"""


def write_ours(folder: Path, chain: Chain) -> None:
    head = "from falaj import pipeline, step\n"
    kind = chain.kind(len(chain.bodies))
    main = f"@pipeline\ndef main(x: int = 0) -> {kind}:\n{chain.calls()}    return x\n"
    files(
        folder,
        {
            "falaj.toml": SETTINGS,
            "pipeline.py": head + chain.functions("@step\n") + main,
            "library.py": LIBRARY,
        },
    )


def answer_ours(folder: Path, _said: str) -> str:
    """What the newest run left, asked for afterwards."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom falaj.links.files.blobs import FileBlobs\n"
        "from falaj.links.sql.store import SqlStore\nfrom falaj.facts.runs import Run\n"
        "run = SqlStore.open(Path('.falaj/store.db')).find(Run, limit=1)[0]\n"
        "done = getattr(run, 'fact', run)\n"
        "got = done.result\n"
        "print('nothing' if got is None else got.rows if got.rows is not None\n"
        "      else FileBlobs(Path('.falaj/blobs')).get(got.digest).decode())\n"
    )
    done = subprocess.run(
        [ours() / "python", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# -- theirs ------------------------------------------------------------------------------------


def write_plain(folder: Path, chain: Chain) -> None:
    """A careful person's script: it saves what every step made, as Parquet."""
    text = "import sys\n" + chain.functions() + "x = int(sys.argv[1])\n"
    for number in range(len(chain.bodies)):
        text += f"x = s{number}(x)\n"
        if chain.kind(number + 1) != "int":
            text += (
                f"x.write_parquet('s{number}.parquet', compression='zstd', compression_level=1)\n"
            )
    files(folder, {"pipeline.py": text + SHOWN})


def write_hamilton(folder: Path, chain: Chain) -> None:
    last = f"s{len(chain.bodies) - 1}"
    files(
        folder,
        {
            "steps.py": chain.functions(named_inputs=True),
            "run.py": "import sys\nfrom hamilton import driver\nimport steps\n"
            "made = driver.Builder().with_modules(steps).with_cache().build()\n"
            f"x = made.execute(['{last}'], inputs={{'x': int(sys.argv[1])}})['{last}']\n" + SHOWN,
        },
    )


def write_flyte(folder: Path, chain: Chain) -> None:
    kind = chain.kind(len(chain.bodies))
    head = "import sys\nimport flyte\nenv = flyte.TaskEnvironment(name='bench', cache='auto')\n"
    text = head + chain.functions("@env.task\n")
    text += f"@env.task\ndef main(x: int) -> {kind}:\n{chain.calls()}    return x\n\n"
    text += (
        "if __name__ == '__main__':\n    flyte.init(local_persistence=True)\n"
        "    run = flyte.with_runcontext(mode='local').run(main, x=int(sys.argv[1]))\n"
        "    x = run.outputs()[0]\n    " + SHOWN
    )
    files(folder, {"pipeline.py": text})


def write_prefect(folder: Path, chain: Chain) -> None:
    head = (
        "import sys\nfrom prefect import flow, task\n"
        "from prefect.cache_policies import INPUTS, TASK_SOURCE\n"
        "CACHED = {'cache_policy': INPUTS + TASK_SOURCE, 'persist_result': True}\n"
    )
    text = head + chain.functions("@task(**CACHED)\n")
    text += f"@flow\ndef main(x: int):\n{chain.calls()}    return x\n\n"
    text += "if __name__ == '__main__':\n    x = main(int(sys.argv[1]))\n    " + SHOWN
    files(folder, {"pipeline.py": text})


def write_zenml(folder: Path, chain: Chain) -> None:
    last = f"s{len(chain.bodies) - 1}"
    text = "import sys\nfrom zenml import pipeline, step\n" + chain.functions("@step\n")
    text += f"@pipeline\ndef main(x: int):\n{chain.calls()}\n"
    text += (
        "if __name__ == '__main__':\n    run = main(int(sys.argv[1]))\n"
        f"    x = run.steps['{last}'].outputs['output'][0].load()\n    " + SHOWN
    )
    files(folder, {"pipeline.py": text})


def write_kedro(folder: Path, chain: Chain) -> None:
    count = len(chain.bodies)
    nodes = ", ".join(
        f"node(s{n}, '{'params:x' if n == 0 else f'x{n}'}', 'x{n + 1}', name='s{n}')"
        for n in range(count)
    )
    shown = f"def shown(x):\n    {SHOWN}    return 0\n\n"
    catalog = "".join(
        f"x{n + 1}:\n  type: polars.EagerPolarsDataset\n  file_format: parquet\n"
        f"  filepath: data/x{n + 1}.parquet\n"
        for n in range(count)
        if chain.kind(n + 1) != "int"
    )
    files(
        folder,
        {
            "pyproject.toml": "[tool.kedro]\npackage_name = 'bench_kedro'\nproject_name = 'bench'\n"
            "kedro_init_version = '1.7.0'\nsource_dir = 'src'\n",
            "src/bench_kedro/__init__.py": "",
            "src/bench_kedro/settings.py": "",
            "src/bench_kedro/steps.py": chain.functions(),
            "src/bench_kedro/pipeline_registry.py": "from kedro.pipeline import node, pipeline\n"
            f"from bench_kedro.steps import {', '.join(f's{n}' for n in range(count))}\n\n\n{shown}\n"
            f"def register_pipelines():\n    return {{'__default__': pipeline([{nodes}, "
            f"node(shown, 'x{count}', 'shown')])}}\n",
            "conf/base/catalog.yml": catalog,
            "conf/base/parameters.yml": "x: 0\n",
            "conf/local/.keep": "",
            "data/.keep": "",
        },
    )
    for name in ("helpers.py", *chain.files):
        (folder / name).rename(folder / "src" / name)


def write_metaflow(folder: Path, chain: Chain) -> None:
    """Its steps have to be named start and end; x goes from step to step as an attribute."""
    count = len(chain.bodies)
    text = "from metaflow import FlowSpec, Parameter, step\n" + chain.functions()
    text += "class Bench(FlowSpec):\n    given = Parameter('given', type=int, default=0)\n"
    for number in range(count):
        name = "start" if number == 0 else f"step{number}"
        after = "end" if number == count - 1 else f"step{number + 1}"
        got = "self.given" if number == 0 else "self.x"
        text += f"\n    @step\n    def {name}(self):\n        self.x = s{number}({got})\n"
        text += f"        self.next(self.{after})\n"
    text += "\n    @step\n    def end(self):\n        x = self.x\n        " + SHOWN
    text += "\nif __name__ == '__main__':\n    Bench()\n"
    files(folder, {"pipeline.py": text})


def answer_metaflow(_folder: Path, said: str) -> str:
    found = [line for line in said.splitlines() if "RESULT " in line]
    return found[-1].rpartition("RESULT ")[2] if found else "nothing"


def write_dvc(folder: Path, chain: Chain) -> None:
    """Stages of one script; their dependencies are the script and the file of the stage before."""
    text = "import json\nimport sys\n" + chain.functions()
    text += (
        "name, got, made = sys.argv[1:]\n"
        "x = pl.read_parquet(got) if got.endswith('parquet') else json.load(open(got))\n"
        "x = globals()[name](x)\n"
        "if made.endswith('parquet'):\n    x.write_parquet(made)\n"
        "else:\n    json.dump(x, open(made, 'w'))\n"
    )
    kinds = ["json" if chain.kind(n) == "int" else "parquet" for n in range(len(chain.bodies) + 1)]
    lines = ["stages:"]
    for number in range(len(chain.bodies)):
        got, made = f"x{number}.{kinds[number]}", f"x{number + 1}.{kinds[number + 1]}"
        lines += [
            f"  s{number}:",
            f"    cmd: python pipeline.py s{number} {got} {made}",
            f"    deps: [pipeline.py, {got}]",
            f"    outs: [{made}]",
        ]
    files(folder, {"pipeline.py": text, "dvc.yaml": "\n".join(lines) + "\n", "x0.json": "0"})


def answer_dvc(folder: Path, _said: str) -> str:
    last = max(folder.glob("x*.*"), key=lambda path: int(path.stem[1:]))
    if last.suffix == ".json":
        return last.read_text()
    code = f"import polars as pl; print(pl.scan_parquet({str(last)!r}).select(pl.len()).collect().item())"
    done = subprocess.run(
        [peer("dvc") / "python", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def in_file(name: str) -> Callable[[Path, int], None]:
    def write(folder: Path, x: int) -> None:
        (folder / name).write_text(str(x))

    return write


def scripted(name: str, file: str = "pipeline.py") -> Callable[[Path, int], list[str | Path]]:
    return lambda _folder, x: [peer(name) / "python", file, str(x)]


OURS = (
    Tool(
        "falaj run",
        "falaj",
        "`falaj run`, embedded, workers",
        True,
        "run, steps, keys, artifacts, logs, events",
        write_ours,
        lambda _f, x: [ours() / "falaj", "run", "-p", f"x={x}"],
        ours,
        answer=answer_ours,
    ),
    Tool(
        "falaj as a library",
        "falaj",
        "`run_pipeline` in process",
        True,
        "cache entries, artifacts",
        write_ours,
        lambda _f, x: [ours() / "python", "library.py", str(x)],
        ours,
    ),
)
PLAIN = Tool(
    "plain",
    "polars",
    "a script that saves the same Parquet files",
    False,
    "nothing",
    write_plain,
    lambda _f, x: [ours() / "python", "pipeline.py", str(x)],
    ours,
)
PEERS = (
    Tool(
        "hamilton",
        "sf-hamilton",
        "`Builder().with_cache()`",
        True,
        "keys and versions of nodes",
        write_hamilton,
        scripted("hamilton", "run.py"),
        lambda: peer("hamilton"),
    ),
    Tool(
        "flyte",
        "flyte",
        '`cache="auto"`, local, `local_persistence=True`',
        True,
        "runs and actions",
        write_flyte,
        scripted("flyte"),
        lambda: peer("flyte"),
        quiet={"FLYTE_DISABLE_TELEMETRY": "1"},
    ),
    Tool(
        "prefect",
        "prefect",
        "`INPUTS + TASK_SOURCE`, temporary server",
        True,
        "flow and task runs",
        write_prefect,
        scripted("prefect"),
        lambda: peer("prefect"),
        quiet={"PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        slow=True,
    ),
    Tool(
        "zenml",
        "zenml",
        "default stack",
        True,
        "runs, steps, artifacts",
        write_zenml,
        scripted("zenml"),
        lambda: peer("zenml"),
        once=(("zenml", "init"),),
        quiet={"ZENML_LOGGING_VERBOSITY": "INFO"},
        slow=True,
    ),
    Tool(
        "dvc",
        "dvc",
        "`dvc repro`, deps: the pipeline's file",
        True,
        "dvc.lock",
        write_dvc,
        lambda _f, _x: [peer("dvc") / "dvc", "repro"],
        lambda: peer("dvc"),
        once=(("dvc", "init", "--no-scm", "-q"),),
        before=in_file("x0.json"),
        answer=answer_dvc,
        quiet={"DVC_NO_ANALYTICS": "1"},
    ),
    Tool(
        "kedro",
        "kedro",
        "`kedro run`; no cache",
        False,
        "nothing",
        write_kedro,
        lambda _f, x: [peer("kedro") / "kedro", "run", f"--params=x={x}"],
        lambda: peer("kedro"),
        quiet={"KEDRO_DISABLE_TELEMETRY": "1"},
    ),
    Tool(
        "metaflow",
        "metaflow",
        "`run`, local; no cache (`resume` is by hand)",
        False,
        "runs, tasks, artifacts, logs",
        write_metaflow,
        lambda _f, x: [peer("metaflow") / "python", "pipeline.py", "run", "--given", str(x)],
        lambda: peer("metaflow"),
        answer=answer_metaflow,
        quiet={"USERNAME": "bench"},
    ),
)


# Flyte and ZenML know Polars by plug-ins, which cost their start; so only frames have them.
FRAME_HOMES = {"flyte": "flyteframes", "zenml": "zenmlframes"}


def for_frames(tool: Tool) -> Tool:
    name = FRAME_HOMES.get(tool.name)
    if name is None:
        return tool
    return replace(tool, command=scripted(name), home=lambda: peer(name))


def module_file(folder: Path, name: str) -> Path:
    """Where a module of a project lies."""
    inside = folder / "src" / name
    return inside if inside.exists() else folder / name


def steps_file(folder: Path) -> Path:
    """The file that holds the step functions."""
    for name in ("steps.py", "src/bench_kedro/steps.py"):
        if (folder / name).exists():
            return folder / name
    return folder / "pipeline.py"
