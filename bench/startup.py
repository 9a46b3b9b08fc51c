"""How much CPU it costs to start: bare Python, ours, MLflow's, ZenML's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from bench.harness import QUIET, ROOT, compared, interleaved, ours, peer, version, write

NOTES = """
CPU time (user + system, milliseconds, median) of the whole command, bytecode compiled for all.
`falaj status` runs the whole application inside the process, on an empty workspace.
The peers' `--help` is what their completion would cost at each press of the tab key, too.
"""


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    here, mlflow, zenml = ours(), peer("mlflow"), peer("zenml")
    python = here / "python"
    subprocess.run([python, "-m", "compileall", "-q", ROOT / "src"], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "flights"
        env = {**QUIET, "HOME": scratch, "PATH": f"{here}:/usr/bin:/bin"}
        subprocess.run(
            [here / "falaj", "init", project.name],
            cwd=scratch,
            env=env,
            check=True,
            capture_output=True,
        )
        costs = interleaved(
            {
                "bare python": [python, "-c", "pass"],
                "falaj --help": [here / "falaj", "--help"],
                "falaj status": [here / "falaj", "status"],
                "import falaj": [python, "-c", "import falaj"],
                "mlflow --help": [mlflow / "mlflow", "--help"],
                "import mlflow": [mlflow / "python", "-c", "import mlflow"],
                "zenml --help": [zenml / "zenml", "--help"],
                "import zenml": [zenml / "python", "-c", "import zenml"],
            },
            runs=5 if quick else 15,
            at=project,
        )
    ms = {name: cost.cpu_s * 1000 for name, cost in costs.items()}
    asked = (
        ("falaj --help", "bare python", 6.0),
        ("falaj --help", "mlflow --help", 0.05),
        ("falaj --help", "zenml --help", 0.05),
        ("import falaj", "bare python", 3.0),
        ("import falaj", "import mlflow", 0.05),
        ("import falaj", "import zenml", 0.05),
        ("falaj status", "bare python", 45.0),
        ("falaj status", "mlflow --help", 1.0),
    )
    rows = [
        compared(mine, ms[mine], ms[theirs], theirs, unit="ms CPU", target=target)
        for mine, theirs, target in asked
    ]
    versions = {
        "falaj": version(python, "falaj"),
        "mlflow": version(mlflow / "python", "mlflow"),
        "zenml": version(zenml / "python", "zenml"),
    }
    return write("startup", rows, versions=versions, load=load, notes=NOTES)
