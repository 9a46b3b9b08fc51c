"""The demo: every stage is a real command on real flights; nothing is scripted to succeed."""

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
from falaj.doors.cli.demo.replay import Replay, flights
from falaj.doors.cli.demo.tell import Story
from falaj.doors.cli.reports import measured, verdict_of
from falaj.doors.cli.templates import unpack

__all__ = ["Failed", "Tale"]

MODEL: Final = "flight-delay"
PLACE: Final = "production"
READER: Final = "layla"  # the second identity: approves what the owner made
OPERATOR: Final = "operator"
TRAINER: Final = "trainer"
OVER: Final = ("promoted", "rolled-back", "aborted")
PATIENCE_S: Final = 60.0
QUIET: Final = {"CI": "1", "NO_COLOR": "1"}


class Failed(FalajError):
    """A stage ended otherwise than the story hopes; it is said and the demo ends non-zero."""

    exit = Exit.GATE_FAIL


class Tale:
    """One demo in one folder. The worker is a process of its own, as in life."""

    def __init__(self, folder: Path, story: Story) -> None:
        self.folder, self.story = folder, story
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.first = ""  # the proposal that became the challenger
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
                word = terminal.mark(result["verdict"])
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
        words = {"shown_release": change["release"], "shown_evidence": change["evidence"]}
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
        words = {"shown_release": seen["release"], "shown_evidence": seen["evidence"]}
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
                    fix=f"look at {self.folder / STATE / 'worker.log'}",
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
        with (self.folder / STATE / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "falaj", "worker", "--every", "0.25", *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | QUIET,
            )
        self.story.others.add(self.workers[name].pid)

    def kill_worker(self) -> None:
        """End it as a crash would (kill -9), in the middle of a rollout; then start another one."""
        worker = self.workers[OPERATOR]
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.start_worker(OPERATOR, "rollouts", "monitors")

    # --- the chapters ---

    def tell(self) -> None:
        """From the champion to the verified evidence."""
        self.champion()
        names = self.feature_names()
        rows = flights(self.live_rows(), names)
        self.april(rows, len(names))
        self.challenger()
        self.harmful()
        self.drifting()
        self.prove()

    def champion(self) -> None:
        with self.story.stage("champion", "The champion: trained on January to March"):
            self.story.command("falaj access add layla --role approver")
            self.owner.post("/identities", {"name": READER, "roles": ["approver"]})
            self.run(month_from=1, month_to=3)
        with self.story.stage("champion-gate", "Its gates: quality, bias, robustness, latency ..."):
            self.gate()
        with self.story.stage("champion-release", "Release, change, approval by somebody else"):
            self.release("1.0.0")
            change = self.approved("1.0.0", "first release")
        with self.story.stage("champion-rollout", "Into production"):
            self.start_worker(OPERATOR, "rollouts", "monitors")
            done = self.follow(self.start(change))
            self.expect(done, "promoted")
            self.remember("1.0.0 is live", "1.0.0")

    def live_rows(self) -> bytes:
        run = self.owner.post("/runs", {"pipeline": "pipeline:live", "parameters": {}})
        return self.works.ground.blobs.get(run["result"]["digest"])

    def feature_names(self) -> list[str]:
        release = self.owner.get("/releases/1.0.0")
        return [c["name"] for c in release["manifest"]["schema"]["inputs"][0]["columns"]]

    def april(self, rows: Any, columns: int) -> None:
        with self.story.stage("april", "April: every flight is a real HTTP request"):
            self.traffic = self.replay(rows, columns)
            self.traffic.go(until=month(5))
            self.story.say(self.tally())
            self.show_drift()

    def challenger(self) -> None:
        with self.story.stage("challenger", "A challenger: the drift has asked for a retraining"):
            self.start_worker(TRAINER, "learning")
            self.first = self.proposal()
            change = self.proposed(self.settled(self.first))
            self.story.command(f"falaj change take {change['id']}")
            self.owner.post(f"/changes/{change['id']}/take")
            change = self.judged(change["id"])
        with self.story.stage("challenger-rollout", "Its canary, on the flights of May"):
            rollout = self.start(change)
            killed = False

            def may() -> bool:
                nonlocal killed
                left = self.traffic.go(seconds=1.0)
                if not killed and self.owner.get(f"/rollouts/{rollout['id']}")["rollout"]["step"]:
                    killed = True
                    self.story.say("kill -9 of the worker, in the middle; another one goes on")
                    self.kill_worker()
                return left

            done = self.follow(rollout, may)
            self.story.say(self.tally())
            self.expect(done, "promoted")
            self.remember("1.1.0 is live", "1.1.0")

    def harmful(self) -> None:
        with self.story.stage("harmful", "A harmful one: its weather feed has turned to SI units"):
            self.story.say(
                "wind in m/s, rain in mm, sight in metres: in training and in the gates'"
            )
            self.story.say(
                "rows alike, so it looks as good as before; callers still send mph, miles"
            )
            self.run(month_from=1, month_to=4, weather_units="si")
            self.gate()
            self.release("1.2.0")
            change = self.approved("1.2.0", "cleaner weather feed")
        with self.story.stage("harmful-rollout", "Its canary goes back by itself"):
            rollout = self.start(change)
            done = self.follow(rollout, lambda: self.traffic.go(seconds=0.5))
            self.story.say(self.tally())
            self.expect(done, "rolled-back")
            self.remember("1.1.0 is live again", "1.1.0")

    def drifting(self) -> None:
        with self.story.stage("drift", "June and July: until the inputs have drifted again"):
            known = {self.first}
            while self.traffic.go(seconds=2.0) and self.traffic.last < month(8):  # type: ignore[operator]
                if {p["id"] for p in self.owner.get("/proposals")} - known:
                    break
            self.story.say(self.tally())
            found = self.proposal(known)
            self.show_drift()
        with self.story.stage("retraining", "Another retraining is proposed, with its evidence"):
            self.proposed(self.settled(found))

    def proposal(self, known: set[str] | None = None) -> str:
        """The id of a proposal that was not known; a monitor makes one within its turn."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            fresh = [p["id"] for p in self.owner.get("/proposals") if p["id"] not in (known or ())]
            if fresh:
                return str(fresh[0])
            time.sleep(0.3)
        raise Failed("demo.no-drift", "no drift was found, so no retraining was proposed")

    def settled(self, name: str) -> dict[str, Any]:
        """The proposal at its end: run, gated, released, asked for."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = next(p for p in self.owner.get("/proposals") if p["id"] == name)
            if found["change"] or found["verdict"] not in ("", "pass"):
                return dict(found)
            if time.monotonic() > end:
                raise Failed("demo.no-retraining", "the retraining did not end")
            time.sleep(0.3)

    def proposed(self, proposal: dict[str, Any]) -> dict[str, Any]:
        """Say what the retraining made; it is only a proposal until people decide."""
        if not proposal["change"]:
            raise Failed(
                "demo.no-proposal",
                f"the retraining ended with {proposal['verdict']}: {proposal['reason']}",
                fix=f"look at {self.folder / STATE / 'trainer.log'}",
            )
        run = self.owner.get(f"/runs/{proposal['run']}")
        words = ", ".join(f"{k}={v}" for k, v in run["parameters"].items() if "month" in k)
        self.story.say(f"because of {proposal['reason']}")
        self.story.say(f"trained with {words}: AUC {run['metrics']['auc']:.4f} on held-out days")
        report = self.owner.get("/gates", run=run["id"], limit=1)[0]
        self.results(report)
        change: dict[str, Any] = self.owner.get(f"/changes/{proposal['change']}")["change"]
        self.story.say(f"{change['id']} {change['title']} is {change['state']}: people decide")
        return change

    def show_drift(self) -> None:
        self.story.command(f"falaj drift {MODEL}")
        for window in reversed(self.owner.get(f"/models/{MODEL}/windows", limit=20)):
            moved = [f for f in window["features"] if f["violated"]]
            told = ", ".join(
                f"{f['feature']} PSI {f['psi']:.2f} (limit {f['psi_limit']:.2f})" for f in moved
            )
            word = terminal.mark("fail" if moved else "pass")
            self.story.say(f"{window['opens'][:10]}  {window['rows']:>5} rows  {word}  {told}")

    def prove(self) -> None:
        with self.story.stage("evidence", "Evidence that an outsider can check"):
            pack = self.folder / "evidence.zip"
            trust = self.folder / "evidence.trust.json"
            self.story.command(f"falaj evidence export {MODEL}")
            pack.write_bytes(self.owner.raw("GET", f"/models/{MODEL}/evidence"))
            trust.write_bytes(self.owner.raw("GET", "/trust"))
            self.elsewhere(pack, trust)
            for at, what, version in self.moments:
                found = self.owner.get(f"/models/{MODEL}/live", environment=PLACE, at=at)
                right = found["stable_version"] == version
                self.story.say(
                    f"{terminal.mark('pass' if right else 'fail')}  "
                    f"falaj who-was-live {MODEL} --at {at[:19]}Z: {found['stable_version']} ({what})"
                )
                if not right:
                    raise Failed(
                        "demo.ledger", f"expected {version}, got {found['stable_version']}"
                    )

    def elsewhere(self, pack: Path, trust: Path) -> None:
        """Verify in another directory, in another process, without the workspace."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as other:
            for path in (pack, trust):
                shutil.copy(path, other)
            self.story.command(f"falaj verify {pack.name} --trust {trust.name}   (elsewhere)")
            done = subprocess.run(
                [sys.executable, "-m", "falaj", "verify", pack.name, "--trust", trust.name],
                cwd=other,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        for line in done.stdout.splitlines():
            self.story.say(line)
        if done.returncode != 0:
            raise Failed("demo.unverified", f"the pack does not verify: {done.stderr[-500:]}")

    def tally(self) -> str:
        traffic = self.traffic
        known = {r["id"]: r["version"] for r in self.owner.get("/releases")}
        by = ", ".join(
            f"{known.get(release, release[:12])} {count:,}"
            for release, count in traffic.releases.items()
        )
        at = traffic.last.strftime("%d %B") if traffic.last else "nothing"
        return (
            f"up to {at}: {traffic.sent:,} answers ({by}), {traffic.refused} refused, "
            f"{traffic.reported:,} labels reported"
        )

    def expect(self, rollout: dict[str, Any], phase: str) -> None:
        self.story.say(f"{rollout['id']} {rollout['phase']}: {rollout['why']}")
        if rollout["phase"] != phase:
            raise Failed(
                "demo.other-end",
                f"{rollout['version']} is {rollout['phase']}; the story hoped for {phase}",
                why=rollout["why"],
                fix=f"cd {self.folder} && falaj rollout watch {rollout['id']}",
            )


def month(number: int) -> datetime:
    return datetime(2013, number, 1, tzinfo=UTC).replace(tzinfo=None)


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
