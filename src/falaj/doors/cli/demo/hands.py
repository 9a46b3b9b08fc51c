"""The hands of the demo: each method is a command that a person would type, and what it said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from falaj.app import STATE, Works
from falaj.base.errors import Exit, FalajError
from falaj.doors.cli import terminal
from falaj.doors.cli.client import Embedded
from falaj.doors.cli.demo.replay import Replay
from falaj.doors.cli.demo.tell import Story
from falaj.doors.cli.reports import marked, measured, verdict_of
from falaj.doors.cli.templates import unpack

__all__ = ["MODEL", "OPERATOR", "PATIENCE_S", "PLACE", "TRAINER", "Failed", "Hands"]

MODEL: Final = "flight-delay"
PLACE: Final = "production"
READER: Final = "layla"  # the second identity: approves what the owner made
OPERATOR: Final = "operator"
TRAINER: Final = "trainer"
OVER: Final = ("promoted", "rolled-back", "aborted")
PATIENCE_S: Final = 180.0
QUIET: Final = {"CI": "1", "NO_COLOR": "1"}


class Failed(FalajError):
    """A stage ended otherwise than the story hopes; it is said and the demo ends non-zero."""

    exit = Exit.GATE_FAIL


class Hands:
    """One demo project in one folder. The workers are processes of their own, as in life."""

    def __init__(self, folder: Path, story: Story) -> None:
        self.folder, self.story = folder, story
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.moments: list[tuple[str, str, str]] = []  # when, what, release that must answer

    def __enter__(self) -> Self:
        unpack("flights", self.folder)
        commit(self.folder)
        self.works = Works.open(self.folder, tell=self.story.progress)
        self.owner = Embedded(self.works)
        self.reader = Embedded(self.works, READER)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what was started: the workers by their pid, the servers through their target."""
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            try:
                worker.wait(timeout=10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        if hasattr(self, "works"):
            self.works.ground.targets["local"].stop(PLACE)
            self.works.close()

    # --- the parts of a stage ---

    def run(self, **parameters: Any) -> dict[str, Any]:
        words = " ".join(f"-p {name}={value}" for name, value in parameters.items())
        self.story.command(f"falaj run {words}".rstrip())
        run: dict[str, Any] = self.owner.post("/runs", {"parameters": parameters})
        done = [step["step"] for step in run["steps"] if step["status"] == "executed"]
        cached = [step["step"] for step in run["steps"] if step["status"] == "cached"]
        self.story.say(
            f"ran {', '.join(done) or 'nothing'}; cached {', '.join(cached) or 'nothing'}"
        )
        metrics = run["metrics"]
        self.story.say(
            f"AUC {metrics['auc']:.4f} on held-out days (logistic baseline "
            f"{metrics['baseline_auc']:.4f}), wrong {metrics['wrong']:.1%}"
        )
        return run

    def gate(self) -> dict[str, Any]:
        self.story.command("falaj gate")
        report: dict[str, Any] = self.owner.post("/gates", {"environment": PLACE})
        self.results(report)
        verdict = verdict_of(report)
        if verdict != "pass":
            bad = [r for r in report["results"] if r["verdict"] != "pass"]
            raise Failed(
                "demo.gate",
                f"the gate says {verdict}: {bad[0]['check']}: {bad[0]['reason']}",
                fix=f"cd {self.folder} && falaj gate --explain",
            )
        return report

    def results(self, report: dict[str, Any]) -> None:
        for result in report["results"]:
            if result["gate"] != "data":
                word = marked(result)
                self.story.say(f"{word}  {result['check']}  {measured(result)}".rstrip())
        contract = [r for r in report["results"] if r["gate"] == "data"]
        passed = sum(r["verdict"] == "pass" for r in contract)
        self.story.say(f"{terminal.mark('pass')}  data  {passed} of {len(contract)} promises kept")

    def release(self, version: str) -> dict[str, Any]:
        self.story.command(f"falaj release create --version {version}")
        release: dict[str, Any] = self.owner.post("/releases", {"version": version})
        self.story.say(f"release {version} is {terminal.short(release['id'])}, signed")
        return release

    def approved(self, version: str, reason: str) -> dict[str, Any]:
        """Open the change; show that its author may not approve it; let the reader do it."""
        self.story.command(f'falaj change open {version} -m "{reason}"')
        change: dict[str, Any] = self.owner.post(
            f"/environments/{PLACE}/changes", {"release": version, "reason": reason}
        )
        self.story.say(f"{change['id']} {change['title']}, risk {change['risk']}")
        self.story.command(f"falaj approve {change['id']} -m ...")
        words = {f"shown_{name}": change[name] for name in ("release", "evidence", "report")}
        try:
            self.owner.post(f"/changes/{change['id']}/approve", {"comment": "mine", **words})
        except FalajError as refusal:
            self.story.say(f"refused: {refusal}")
        else:
            raise Failed("demo.four-eyes", "an author could approve an own change")
        return self.judged(change["id"])

    def judged(self, name: str) -> dict[str, Any]:
        """The reader looks at the change and signs what was seen."""
        self.story.command(f"falaj --as {READER} approve {name} -m ...")
        seen = self.reader.get(f"/changes/{name}")["change"]
        words = {f"shown_{name}": seen[name] for name in ("release", "evidence", "report")}
        change: dict[str, Any] = self.reader.post(
            f"/changes/{name}/approve", {"comment": "read the evidence", **words}
        )
        self.story.say(f"{name} is {change['state']}, signed by {READER}")
        return change

    def start(self, change: dict[str, Any]) -> dict[str, Any]:
        self.story.command(f"falaj rollout start {change['id']}")
        rollout: dict[str, Any] = self.owner.post(f"/changes/{change['id']}/rollout")
        self.story.say(f"{rollout['id']} of {rollout['version']} started")
        return rollout

    def follow(
        self, rollout: dict[str, Any], traffic: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Send traffic until the rollout is over; say each decision with its numbers."""
        seen: set[str] = set()
        end = time.monotonic() + PATIENCE_S
        while True:
            view = self.owner.get(f"/rollouts/{rollout['id']}", decisions=200)
            for decision in reversed(view["decisions"]):
                if decision["id"] not in seen and decision["action"] != "hold":
                    self.decision(decision)
                seen.add(decision["id"])
            now: dict[str, Any] = view["rollout"]
            if now["phase"] in OVER:
                return now
            if time.monotonic() > end:
                raise Failed(
                    "demo.undecided",
                    f"{now['id']} is still {now['phase']} after {PATIENCE_S:.0f} s: {now['why']}",
                    fix=f"look at {self.log(OPERATOR)}",
                )
            if traffic is None:
                time.sleep(0.3)
            elif not traffic():
                raise Failed("demo.no-traffic-left", f"the flights ended before {now['id']} did")

    def decision(self, decision: dict[str, Any]) -> None:
        share, action = self.steps[decision["step"]], decision["action"]
        self.story.say(f"{terminal.stamp()} at {share} %: {action}: {decision['reasons'][0]}")
        totals = decision["numbers"]["totals"]
        if "labels" in totals:
            n_c, x_c, n_s, x_s = totals["labels"]
            self.story.say(
                f"         labels: canary wrong in {x_c:,} of {n_c:,}, stable in {x_s:,} of {n_s:,}"
            )
        for reason in decision["reasons"][1:] if action == "promote" else []:
            if reason.startswith(
                tuple(self.works.ground.project.environments[PLACE].rollout.prove)
            ):
                self.story.say(f"         {reason}")

    @property
    def steps(self) -> list[int]:
        return list(self.works.ground.project.environments[PLACE].rollout.steps_pct)

    def remember(self, what: str, version: str) -> None:
        self.moments.append((datetime.now(UTC).isoformat(), what, version))

    def replay(self, rows: Any, columns: int) -> Replay:
        servers = self.owner.get(f"/environments/{PLACE}/servers")["servers"]
        self.story.others |= {server["pid"] for server in servers}
        host, _, port = servers[0]["url"].removeprefix("http://").partition(":")
        return Replay(host, int(port), MODEL, rows, columns)

    def start_worker(self, name: str, *duties: str) -> None:
        """A process that works off what waits. Kill it at any time: the next one goes on."""
        words = [word for duty in duties for word in ("--duty", duty)]
        self.story.command(f"falaj worker {' '.join(words)} &")
        with self.log(name).open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "falaj", "worker", "--every", "0.25", *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | QUIET,
            )
        self.story.others.add(self.workers[name].pid)

    def log(self, name: str) -> Path:
        return self.folder / STATE / f"{name}.log"

    def kill_worker(self) -> None:
        """End it as a crash would (kill -9), in the middle of a rollout; then start another one."""
        worker = self.workers[OPERATOR]
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.start_worker(OPERATOR, "rollouts", "monitors")


def commit(folder: Path) -> None:
    """A model comes from a commit; without git the record says that there is none."""
    program = shutil.which("git")
    if program is None:
        return
    (folder / ".gitignore").write_text(f"{STATE}/\nevidence*\n__pycache__/\n")
    who = [
        "-c",
        "user.name=owner",
        "-c",
        "user.email=owner@localhost",
        "-c",
        "commit.gpgsign=false",
    ]
    for words in (
        ["init", "-q"],
        ["add", "."],
        [*who, "commit", "-q", "-m", "Predict late flights"],
    ):
        subprocess.run([program, "-C", str(folder), *words], check=True, capture_output=True)
