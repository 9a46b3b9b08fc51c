"""make bench NAME=startup [QUICK=1]."""

from __future__ import annotations

import argparse
from importlib import import_module

NAMES = {
    "audit": "durable events a second, size of a proof, a whole log computed anew",
    "data": "twenty checks on 3.4 million flights, against a hand-written query and three tools",
    "pipelines": "cost, cache and code changes of pipelines, against seven engines",
    "releases": "sign, verify, seal 1 GB, against hashing alone, a plain copy and model_signing",
    "serving": "CPU of a request, memory, start, against seven servers and an echo",
    "batch": "millions of rows through a release, against MLflow pyfunc and Ray Data",
    "startup": "CPU of --help, status and import, against MLflow and ZenML",
    "journey": "wall and CPU of each stage of the demo",
    "steps": "what the engine costs a step, cold and cached, without a process around it",
    "tracking": "100,000 points logged and stored, the best 10 of 10,000 runs found",
    "rollouts": "seconds that a bad release still answers, false rollbacks, minutes to a doubling",
    "stats": "false rollbacks and detection against other rules; drift against Evidently; gates",
}


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    words.add_argument("name", choices=NAMES, help="; ".join(f"{n}: {h}" for n, h in NAMES.items()))
    words.add_argument("--quick", action="store_true", help="fewer repetitions, a first look")
    asked = words.parse_args()
    return import_module(f"bench.{asked.name}").main(quick=asked.quick)


if __name__ == "__main__":
    raise SystemExit(main())
