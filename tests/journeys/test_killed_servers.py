"""A server dies in the middle of a rollout; whoever it still answered was answered rightly."""

from __future__ import annotations

import proofs
import walks
from traffic import Traffic

from falaj.base import digests
from falaj.base.time import now
from falaj.releases.verify import verify_release

FLUSH_S = 0.5  # two beats of a server: what a death may take with it


def test_killed_with_requests_in_flight(live, processes):
    processes.append(walks.worker(live.root, "rollouts"))
    address = walks.server(live)["url"]
    killed = []
    with Traffic(address, rate=300) as traffic:
        rollout = walks.start(live, "1.1.0")
        for reached in (
            lambda: walks.who(live)["weight_bp"],  # the canary has traffic
            lambda: walks.rollout_of(live, rollout)["step"] == 1,
        ):
            walks.wait(reached, what="the moment to kill at")
            dead = walks.server(live)
            walks.kill(dead["pid"])
            killed.append(dead["boot"])
            walks.wait(
                lambda boot=dead["boot"]: (s := walks.server(live))["ready"] and s["boot"] != boot,
                what="the server again",
            )
        done = walks.over(live, rollout)
        reached = len(traffic.calls)
        walks.wait(lambda: len(traffic.calls) > reached + 50, what="calls after the end")

    assert done["phase"] == "promoted", done["why"]
    assert walks.server(live)["url"] == address, "clients know the address"
    assert walks.server(live)["boot"] not in killed

    # Every answer: from a release of the plan of its time, and that release was verified.
    assert {call.status for call in traffic.calls} <= {200, 0, 503}
    proofs.by_plan(live, traffic.answered)
    trust = live.works.ground.keys.trust()
    for release in traffic.by_release():
        folder = live.root / ".falaj/targets/production/releases" / digests.short(release)
        assert verify_release(folder, trust, release_id=release, now=now()).holds

    # Counts are true: nothing is counted that was not asked, and a death takes its last beat at most.
    proofs.nothing_twice(live)
    asked = len(traffic.calls)
    lost = sum(call.status != 200 for call in traffic.calls)
    most = 2 * FLUSH_S * traffic.rate
    everything = proofs.counted(live, {"id": "RO-0001"}), proofs.counted(live, rollout)
    counts = sum(map(sum, everything))
    uncounted = starting(live, traffic)
    assert len(traffic.answered) - uncounted - most <= counts <= asked
    assert lost < most * 3, "a server is back within seconds"
    totals = walks.decisions(live, rollout)[-1]["numbers"]["totals"]
    n_c, x_c, n_s, x_s = totals["errors"]
    assert n_c + n_s <= asked
    assert (x_c, x_s) == (0, 0), "a death is nobody's error: those requests have no answer"
    n_c, _, n_s, _ = totals["labels"]
    assert n_c + n_s <= traffic.reported


def starting(by, traffic):
    """Answers between the two plans that split and count: those of `starting`."""
    events = walks.history(by)
    issued = [e for e in events if e["type"] == "falaj.plan.issued"]
    begin, end = (walks.instant(issued[at]["time"]) for at in (1, 2))
    shown = walks.instant(walks.moves(by)[2]["at"])
    return sum(begin <= call.done and call.sent <= max(end, shown) for call in traffic.answered)
