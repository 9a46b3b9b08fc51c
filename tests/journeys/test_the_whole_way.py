"""From a run to a promoted canary and a harmful one that goes back by itself, as people type it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import loans
import proofs
import walks
from loans import MODEL
from traffic import Traffic
from walks import falaj


def test_the_whole_way(tmp_path, at, processes):
    root = loans.write_project(tmp_path / "loans")

    def typed(*words, ends=0, identity=""):
        code, out, err = falaj(root, *words, identity=identity)
        assert code == ends, f"{words}: {code}\n{out}\n{err}"
        assert "Traceback" not in err
        return out + err

    # The first release: evidence, a signature, a change, four eyes.
    assert "ok" in typed("run")
    assert "quality.roc_auc" in typed("gate")
    typed("release", "create", "--version", "1.0.0")
    typed("access", "add", walks.READER, "--role", "approver")
    typed("change", "open", "1.0.0", "-m", "first release")
    assert "waits" in typed("rollout", "start", "CHG-0001", ends=4)
    assert "author" in typed("approve", "CHG-0001", "-m", "mine", ends=6)
    assert "approved" in typed("approve", "CHG-0001", "-m", "read it", identity=walks.READER)
    assert "nothing is live" in typed("status")
    nobody = datetime.now(UTC).isoformat()
    assert "promoted" in typed("rollout", "start", "CHG-0001", "--watch")

    by = at(root)
    processes.append(walks.worker(root, "rollouts"))
    first = by.owner.get("/releases/1.0.0")["release"]["id"]
    moments = [(datetime.now(UTC), first, "")]
    with Traffic(walks.server(by)["url"]) as traffic:
        walks.wait(lambda: len(traffic.answered) > 50, what="answers")
        assert set(traffic.by_release()) == {first}

        # An equal one walks in.
        equal = walks.made(by, "1.1.0", month=2)["id"]
        rollout = walks.start(by, "1.1.0")
        assert rollout["plan"]["strategy"] == "canary"
        walks.wait(lambda: walks.who(by)["weight_bp"], what="the canary in the ledger")
        moments.append((datetime.now(UTC), first, equal))
        done = walks.over(by, rollout)
        assert done["phase"] == "promoted", done["why"]
        assert "proven" in done["why"]
        moments.append((datetime.now(UTC), equal, ""))
        actions = [d["action"] for d in walks.decisions(by, rollout) if d["action"] != "hold"]
        assert actions == ["advance", "promote"]
        walks.wait(lambda: traffic.calls[-1].release == equal, what="the new one alone")

        # A harmful one goes back by itself; its gates could not see it.
        harmful = walks.made(by, "1.2.0", swapped=True)["id"]
        rollout = walks.start(by, "1.2.0")
        walks.wait(lambda: walks.who(by)["weight_bp"], what="the canary in the ledger")
        moments.append((datetime.now(UTC), equal, harmful))
        done = walks.over(by, rollout)
        assert done["phase"] == "rolled-back"
        assert done["why"].startswith("worse: labels")
        moments.append((datetime.now(UTC), equal, ""))
        over = datetime.now(UTC)
        walks.wait(lambda: traffic.calls[-1].sent > over, what="calls after the end")

    # Nobody was without an answer, and each answer came from a release of the plan of its time.
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(by, traffic.calls)
    assert not [c for c in traffic.calls if c.release == harmful and c.sent > over]
    assert traffic.reported == len(traffic.calls)

    # Counts are true: what callers saw of the harmful one is what was counted of it.
    seen = traffic.by_release()[harmful]
    assert walks.wait(lambda: proofs.counted(by, rollout)[0] == seen, seconds=3, what="all counts")

    # The ledger knows each moment; people read it by version.
    for when, stable, canary in moments:
        found = walks.who(by, when.isoformat())
        assert (found["stable"], found["canary"]) == (stable, canary)
    assert walks.refused(walks.who, by, nobody).code == "rollouts.nothing-live"
    then = moments[0][0].isoformat()
    assert typed("who-was-live", MODEL, "--at", then).startswith("1.0.0")
    assert typed("who-was-live", MODEL).startswith("1.1.0")
    assert "rolled-back" in typed("rollout", "watch", rollout["id"], ends=5)
    status = json.loads(typed("status", "--json"))["data"]
    assert [alert["kind"] for alert in status["alerts"]] == ["rollback"]
    assert by.owner.get("/changes/CHG-0003")["change"]["state"] == "rolled-back"
    proofs.nothing_twice(by)
