"""The demo's chapters: every stage is a real command on real flights; nothing is scripted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from falaj.doors.cli import terminal
from falaj.doors.cli.demo.hands import (
    MODEL,
    OPERATOR,
    PATIENCE_S,
    PLACE,
    TRAINER,
    Failed,
    Hands,
)
from falaj.doors.cli.demo.replay import Replay, flights

__all__ = ["Tale"]

READER: Final = "layla"


class Tale:
    """From the champion to the verified evidence, told by hands that do it."""

    def __init__(self, hands: Hands) -> None:
        self.hands, self.story, self.owner = hands, hands.story, hands.owner
        self.first = ""  # the proposal that became the challenger
        self.traffic: Replay  # from the moment that something is live

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
            self.hands.run(month_from=1, month_to=3)
        with self.story.stage("champion-gate", "Its gates: quality, bias, robustness, latency ..."):
            self.hands.gate()
        with self.story.stage("champion-release", "Release, change, approval by somebody else"):
            self.hands.release("1.0.0")
            change = self.hands.approved("1.0.0", "first release")
        with self.story.stage("champion-rollout", "Into production"):
            self.hands.start_worker(OPERATOR, "rollouts", "monitors")
            done = self.hands.follow(self.hands.start(change))
            self.expect(done, "promoted")
            self.hands.remember("1.0.0 is live", "1.0.0")

    def live_rows(self) -> bytes:
        run = self.owner.post("/runs", {"pipeline": "pipeline:live", "parameters": {}})
        return self.hands.works.ground.blobs.get(run["result"]["digest"])

    def feature_names(self) -> list[str]:
        release = self.owner.get("/releases/1.0.0")
        return [c["name"] for c in release["manifest"]["schema"]["inputs"][0]["columns"]]

    def april(self, rows: Any, columns: int) -> None:
        with self.story.stage("april", "April: every flight is a real HTTP request"):
            self.traffic = self.hands.replay(rows, columns)
            self.traffic.go(until=month(5))
            self.story.say(self.tally())
            self.show_drift()

    def challenger(self) -> None:
        with self.story.stage("challenger", "A challenger: the drift has asked for a retraining"):
            self.hands.start_worker(TRAINER, "learning")
            self.first = self.proposal()
            change = self.proposed(self.settled(self.first))
            self.story.command(f"falaj change take {change['id']}")
            self.owner.post(f"/changes/{change['id']}/take")
            change = self.hands.judged(change["id"])
        with self.story.stage("challenger-rollout", "Its canary, on the flights of May"):
            rollout = self.hands.start(change)
            killed = False

            def may() -> bool:
                nonlocal killed
                left = self.traffic.go(seconds=1.0)
                if not killed and self.owner.get(f"/rollouts/{rollout['id']}")["rollout"]["step"]:
                    killed = True
                    self.story.say("kill -9 of the worker, in the middle; another one goes on")
                    self.hands.kill_worker()
                return left

            done = self.hands.follow(rollout, may)
            self.story.say(self.tally())
            self.expect(done, "promoted")
            self.hands.remember("1.1.0 is live", "1.1.0")

    def harmful(self) -> None:
        with self.story.stage("harmful", "A harmful one: its weather feed has turned to SI units"):
            self.story.say(
                "wind in m/s, rain in mm, sight in metres: in training and in the gates'"
            )
            self.story.say(
                "rows alike, so it looks as good as before; callers still send mph, miles"
            )
            self.hands.run(month_from=1, month_to=4, weather_units="si")
            self.hands.gate()
            self.hands.release("1.2.0")
            change = self.hands.approved("1.2.0", "cleaner weather feed")
        with self.story.stage("harmful-rollout", "Its canary goes back by itself"):
            rollout = self.hands.start(change)
            done = self.hands.follow(rollout, lambda: self.traffic.go(seconds=0.5))
            self.story.say(self.tally())
            self.expect(done, "rolled-back")
            self.hands.remember("1.1.0 is live again", "1.1.0")

    def drifting(self) -> None:
        with self.story.stage("drift", "June and July: until the inputs have drifted again"):
            known = {self.first}
            while self.traffic.go(seconds=2.0, until=month(8)):
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
                fix=f"look at {self.hands.log(TRAINER)}",
            )
        run = self.owner.get(f"/runs/{proposal['run']}")
        words = ", ".join(f"{k}={v}" for k, v in run["parameters"].items() if "month" in k)
        self.story.say(f"because of {proposal['reason']}")
        self.story.say(f"trained with {words}: AUC {run['metrics']['auc']:.4f} on held-out days")
        report = self.owner.get("/gates", run=run["id"], limit=1)[0]
        self.hands.results(report)
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
            pack = self.hands.folder / "evidence.zip"
            trust = self.hands.folder / "evidence.trust.json"
            self.story.command(f"falaj evidence export {MODEL}")
            pack.write_bytes(self.owner.raw("GET", f"/models/{MODEL}/evidence"))
            trust.write_bytes(self.owner.raw("GET", "/trust"))
            self.elsewhere(pack, trust)
            for at, what, version in self.hands.moments:
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
                fix=f"cd {self.hands.folder} && falaj rollout watch {rollout['id']}",
            )


def month(number: int) -> datetime:
    return datetime(2013, number, 1, tzinfo=UTC).replace(tzinfo=None)
