"""One changed byte, wherever it lies: it is found, the file is named, and nothing runs on it."""

from __future__ import annotations

import http.client
import json
import shutil
import zipfile

import loans
import pytest
import walks
from loans import MODEL
from walks import falaj

from falaj.audit.container import write_container
from falaj.base import digests
from falaj.base.errors import FalajError
from falaj.journeys.verify import look

DUTY = frozenset({"rollouts"})


def asked(url):
    """Status of one inference request; 0 where nobody listens."""
    body = {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 3], "data": [1, 1, 1]}]
    }
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(body))
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_a_live_model_was_changed_on_its_target(live):
    """Nobody loads it: it is set aside, said in the log, and what was signed is put back."""
    release = walks.who(live)["stable"]
    folder = live.root / ".falaj/targets/production/releases" / digests.short(release)
    was = walks.server(live)
    assert asked(was["url"]) == 200
    honest = (folder / "model" / "model.onnx").read_bytes()
    walks.flip(folder / "model" / "model.onnx")
    code, out, _ = falaj(live.root, "verify", folder)
    assert code == 7
    assert "model/model.onnx" in out
    walks.kill(was["pid"])

    def back():
        live.works.turn(DUTY)
        return asked(was["url"]) == 200

    walks.wait(back, what="the honest release")
    assert (folder / "model" / "model.onnx").read_bytes() == honest
    (aside,) = folder.parent.glob(f".{folder.name}.*.aside")
    assert (aside / "model" / "model.onnx").read_bytes() != honest
    live.works.turn(DUTY)
    code, out, _ = falaj(live.root, "audit", "list", "--type", "release.tampered", "--json")
    assert code == 0
    (event,) = json.loads(out)["data"]["events"]
    assert "model/model.onnx" in json.dumps(event)


def test_a_live_model_that_cannot_be_put_back_is_refused(live):
    """Its source was changed, too: then nothing answers, and the file is named."""
    release = walks.who(live)["stable"]
    folder = live.root / ".falaj/targets/production/releases" / digests.short(release)
    was = walks.server(live)
    for place in (folder, live.root / ".falaj/releases" / MODEL / "1.0.0"):
        walks.flip(place / "model" / "model.onnx")
    walks.kill(was["pid"])

    def refuses():
        live.works.turn(DUTY)
        assert asked(was["url"]) != 200, "a changed model answers"
        return walks.server(live)["problem"]

    problem = walks.wait(refuses, what="the refusal")
    assert "model/model.onnx was changed" in problem
    code, out, _ = falaj(live.root, "status")
    assert code == 0
    assert "model/model.onnx was changed" in out
    assert "isolated" in out
    assert walks.server(live)["ready"] is False


@pytest.mark.parametrize(
    "name", ["model/model.onnx", "release.json", "card.md", "evidence/gate-bias.dsse.json"]
)
def test_a_release_was_changed_in_the_workspace(live, name):
    change = walks.opened(live, "1.1.0")
    walks.approve(live.reader, change)
    path = live.root / ".falaj/releases" / MODEL / "1.1.0" / name
    walks.flip(path)
    refusal = walks.refused(live.owner.post, f"/changes/{change['id']}/rollout")
    assert refusal.exit == 7
    assert name in str(refusal)
    assert live.owner.get(f"/changes/{change['id']}")["change"]["state"] == "approved"
    assert len(live.owner.get("/rollouts")) == 1
    if name == "model/model.onnx":
        code, _, err = falaj(live.root, "rollout", "start", change["id"])
        assert code == 7
        assert name in err
        code, out, _ = falaj(live.root, "verify", path.parents[1])
        assert code == 7
        assert name in out


def test_from_a_changed_release_the_way_back_is_open(direct):
    walks.turn(direct, walks.start(direct, "1.1.0"))
    release = walks.who(direct)["stable"]
    folder = direct.root / ".falaj/targets/production/releases" / digests.short(release)
    for place in (folder, direct.root / ".falaj/releases" / MODEL / "1.1.0"):
        walks.flip(place / "model" / "model.onnx")
    was = walks.server(direct)
    walks.kill(was["pid"])
    walks.wait(
        lambda: direct.works.turn(DUTY) or walks.server(direct)["problem"], what="the refusal"
    )
    back = direct.owner.post("/environments/production/rollback", {"why": "it was changed"})
    walks.turn(direct, back)
    assert walks.who(direct)["stable_version"] == "1.0.0"
    assert asked(was["url"]) == 200


def test_the_way_back_is_closed_to_a_changed_release(direct):
    walks.turn(direct, walks.start(direct, "1.1.0"))
    walks.flip(direct.root / ".falaj/releases" / MODEL / "1.0.0" / "model" / "model.onnx")
    refusal = walks.refused(direct.owner.post, "/environments/production/rollback", {"why": "odd"})
    assert refusal.exit == 7
    assert "model/model.onnx" in str(refusal)
    assert walks.who(direct)["stable_version"] == "1.1.0"


@pytest.fixture
def pack(live, tmp_path):
    """A pack with two changes, an approval each, a rollout that was aborted; and its trust root."""
    rollout = walks.start(live, "1.1.0")
    walks.turn(live, rollout, when=lambda now: now["phase"] == "progressing")
    live.owner.post("/environments/production/rollout/abort", {"why": "a holiday"})
    walks.turn(live, rollout)
    code, _, err = falaj(live.root, "evidence", "export", MODEL)
    assert code == 0, err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("evidence.zip", "evidence.trust.json"):
        shutil.move(live.root / name, elsewhere / name)
    return elsewhere / "evidence.zip"


def packed_again(pack, to, member=""):
    """The same pack, written anew as we would, with one bit of one member changed."""
    with zipfile.ZipFile(pack) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    if member:
        data = bytearray(members[member])
        data[len(data) // 2] ^= 1
        members[member] = bytes(data)
    write_container(to, members)


def changed_in_place(pack, to, member):
    """The same file with one bit changed inside one member."""
    with zipfile.ZipFile(pack) as old:
        info = old.getinfo(member)
    shutil.copy(pack, to)
    walks.flip(to, info.header_offset + 30 + len(member.encode()) + info.file_size // 2)


def seen(pack, trust):
    """Exit code, and the files that are named."""
    try:
        found = look(pack, trust)
    except FalajError as error:
        return error.exit, str(error)
    named = " ".join(finding["file"] for finding in found.findings)
    return (7, named) if found.findings else (0, named)


def test_evidence_verifies_elsewhere_and_each_of_its_bytes_counts(pack):
    here, trust = pack.parent, pack.with_name("evidence.trust.json")
    code, out, err = falaj(here, "verify", "evidence.zip", "--trust", "evidence.trust.json")
    assert code == 0, out + err
    assert "everything holds" in out
    code, out, err = falaj(here, "verify", "evidence.zip")
    assert code != 0, "a pack cannot vouch for its own keys"
    assert "audit.no-trust-root" in err

    other = here / "other.zip"
    packed_again(pack, other)
    assert seen(other, trust) == (0, "")
    with zipfile.ZipFile(pack) as opened:
        members = [info.filename for info in opened.infolist() if info.file_size]
    assert len(members) > 20
    silent = []
    for change in (packed_again, changed_in_place):
        for member in members:
            change(pack, other, member)
            code, named = seen(other, trust)
            if code != 7 or member not in named:
                silent.append((change.__name__, member, code, named))
    assert silent == []
    for member in (members[0], members[len(members) // 2]):
        changed_in_place(pack, other, member)
        code, out, err = falaj(here, "verify", other.name, "--trust", trust.name)
        assert code == 7
        assert member in out + err


def test_evidence_of_others_is_refused(pack, prepared, tmp_path, at):
    """Another workspace's trust root: the very same pack, keys that nobody gave us."""
    stranger = at(loans.write_project(tmp_path / "stranger"))
    stranger.owner.post("/runs", {"parameters": {}})
    (tmp_path / "other.json").write_bytes(stranger.owner.raw("GET", "/trust"))
    code, out, err = falaj(pack.parent, "verify", pack, "--trust", tmp_path / "other.json")
    assert code == 7, out + err
