"""Ground truth that comes before the log is written, twice, or about nothing: counted once or not."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import loans
import proofs
import walks
from loans import MODEL

DUTY = frozenset({"rollouts"})


def post(connection, path, body):
    """Status and parsed body of one answer on a kept connection, and its request's name."""
    headers = {"content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.getheader("falaj-request", "")


def row(data):
    one = {"name": "features", "datatype": "FP32", "shape": [1, 3], "data": list(map(float, data))}
    return {"inputs": [one]}


def labels(by, rollout):
    """Labelled answers that the analysis has taken: of canary and stable."""
    found = walks.decisions(by, rollout)
    n_c, _, n_s, _ = found[-1]["numbers"]["totals"]["labels"] if found else (0, 0, 0, 0)
    return n_c + n_s


def test_each_answer_is_judged_once(live):
    rollout = walks.start(live, "1.1.0")
    walks.turn(live, rollout, when=lambda _: walks.who(live)["weight_bp"])
    address = walks.server(live)["url"].removeprefix("http://")
    truths = f"/ground-truth/{MODEL}"
    x, y = loans.draw(60, 5)
    names = []
    with closing(http.client.HTTPConnection(address, timeout=10)) as wire:
        for values, value in zip(x.tolist(), y.tolist(), strict=True):
            status, _, name = post(wire, f"/v2/models/{MODEL}/infer", row(values))
            assert status == 200
            names.append((name, value))
            # At once: long before the log of this answer is written. And once more, and corrected.
            for told in (value, value, 1 - value):
                body = {"rows": [{"request": name, "row": 0, "value": told}]}
                status, said, _ = post(wire, truths, body)
                assert (status, said["rejected"]) == (202, [])
        everything = [{"request": name, "row": 0, "value": value} for name, value in names]
        post(wire, truths, {"rows": everything})  # a report of the whole day on top

        def taken():
            live.works.turn(DUTY)
            return labels(live, rollout) == len(names)

        walks.wait(taken, what="all labels")

        # Late doubles change nothing: a new stratum closes, and the total stays.
        post(wire, truths, {"rows": everything})
        strata = len(walks.decisions(live, rollout))
        post(wire, f"/v2/models/{MODEL}/infer", row([0, 0, 0]))

    def another():
        live.works.turn(DUTY)
        return len(walks.decisions(live, rollout)) > strata

    walks.wait(another, what="another stratum")
    assert labels(live, rollout) == len(names)
    proofs.nothing_twice(live)


def test_truth_about_nothing_is_refused(live):
    rollout = walks.start(live, "1.1.0")
    walks.turn(live, rollout, when=lambda _: walks.who(live)["weight_bp"])
    address = walks.server(live)["url"].removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=10)) as wire:
        _, _, name = post(wire, f"/v2/models/{MODEL}/infer", row([1, 1, 1]))
        status, _, refused = post(wire, f"/v2/models/{MODEL}/infer", {"inputs": []})
        assert status == 400
        boot, slot, counter = name[:16], name[16:-12], int(name[-12:], 16)
        rows = [
            {"request": f"{'0' * 16}{slot}{counter:012x}", "row": 0, "value": 1},  # no such server
            {"request": f"{boot}{slot}{counter + 1000:012x}", "row": 0, "value": 1},  # to come
            {"request": refused, "row": 0, "value": 1},  # no release answered it
            {"request": "nonsense", "row": 0, "value": 1},
            {"request": name, "row": -1, "value": 1},
            {"request": name, "row": 0, "value": "late"},
            {"request": name, "row": 0, "value": 1, "weight": 9},
        ]
        status, said, _ = post(wire, f"/ground-truth/{MODEL}", {"rows": rows})
        assert (status, said["accepted"]) == (202, 0)
        assert [one["index"] for one in said["rejected"]] == list(range(len(rows)))
        # A row that the request never had is taken and never finds its answer.
        body = {"rows": [{"request": name, "row": 7, "value": 1}]}
        assert post(wire, f"/ground-truth/{MODEL}", body)[1]["accepted"] == 1

    def counted():
        live.works.turn(DUTY)
        return walks.decisions(live, rollout)

    walks.wait(counted, what="a closed stratum")
    assert labels(live, rollout) == 0
