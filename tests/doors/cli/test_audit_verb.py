"""`falaj audit`: what is found, proven and shown to witnesses; what a worker does by itself."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess

import pytest
from growing import GrowingLog

from falaj.app import Works
from falaj.base import note, tlog
from falaj.base.errors import Exit, FalajError
from falaj.journeys.witness import Witnessing
from falaj.ports.log import Asked


@pytest.fixture
def project(workspace):
    """A workspace with a folder and a repository as witnesses."""
    (workspace / "archive").mkdir()
    subprocess.run(["git", "init", "-q", workspace / "checkpoints"], check=True)
    with (workspace / "falaj.toml").open("a") as file:
        file.write(
            '\n[[audit.witnesses]]\nname = "archive"\nkind = "file"\nplace = "archive"\n'
            '\n[[audit.witnesses]]\nname = "auditor"\nkind = "git"\nplace = "checkpoints"\n'
        )
    return workspace


def sql(root, *statements):
    raw = sqlite3.connect(root / ".falaj" / "store.db")
    for words in statements:
        raw.execute(words)
    raw.commit()
    raw.close()


def held(root):
    return sorted(int(p.name.split(".")[0]) for p in (root / "archive").rglob("*.checkpoint"))


# --- finding ---


def test_events_are_found_by_who_what_and_when(here, workspace):
    everything = here(workspace, "audit", "list", "--limit", "1000", "--json").json()["data"][
        "events"
    ]
    places = [event["place"] for event in everything]
    assert places == sorted(places, reverse=True)
    opened = here(workspace, "audit", "list", "--type", "change.", "--json").json()["data"][
        "events"
    ]
    assert {event["type"] for event in opened} == {"falaj.change.opened"}
    (one,) = opened
    found = here(workspace, "audit", "list", "--object", "change/CHG-0001", "--json").json()["data"]
    assert [event["id"] for event in found["events"]] == [one["id"]]
    mine = here(workspace, "audit", "list", "--who", "owner", "--json").json()["data"]["events"]
    assert 0 < len(mine) < len(everything)
    assert len({event["actor"] for event in mine}) == 1
    none = here(workspace, "audit", "list", "--until", "2020-01-01", "--json").json()["data"]
    assert none == {"events": [], "next": 0}


def test_a_page_says_how_to_go_on(here, workspace):
    first = here(workspace, "audit", "list", "--limit", "3")
    assert "--before " in first.out
    before = first.out.rsplit("--before ", 1)[1].strip()
    second = here(workspace, "audit", "list", "--limit", "3", "--before", before, "--json").json()
    assert [e["place"] for e in second["data"]["events"]] == [int(before) - n for n in (1, 2, 3)]


REFUSED = {
    "a time that is none": (("list", "--since", "yesterday"), Exit.USAGE, "audit.bad-time"),
    "an event that is unknown": (("prove", "01HNOBODY"), Exit.USAGE, "audit.no-such-event"),
    "a size that never was": (("growth", "99999"), Exit.USAGE, "audit.no-such-size"),
    "a folder that is there": (("export", "-o", "."), Exit.USAGE, "audit.export-exists"),
}


@pytest.mark.parametrize(("words", "code", "name"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(here, workspace, words, code, name):
    done = here(workspace, "audit", *words)
    assert done.code == code
    assert f"error[{name}]" in done.err
    assert "fix:" in done.err


def test_verify_names_the_first_place_that_differs(here, workspace):
    assert here(workspace, "audit", "verify").code == Exit.OK
    sql(
        workspace,
        "UPDATE event SET actor = 'x' WHERE id = (SELECT event_id FROM log_leaf WHERE idx = 4)",
    )
    done = here(workspace, "audit", "verify")
    assert done.code == Exit.UNVERIFIED
    assert "first at place 4" in done.out
    data = here(workspace, "audit", "verify", "--json").json()["data"]
    assert data["first"] == 4
    assert data["findings"][0]["code"] == "audit.log-differs"


# --- witnesses ---


def test_a_worker_shows_each_witness_the_newest_checkpoint(here, project):
    done = here(project, "worker", "--once", "--duty", "witnesses")
    assert done.code == 0, done.err
    assert "witness archive holds the checkpoint of" in done.out
    (size,) = held(project)
    listed = here(project, "audit", "witness", "list", "--json").json()["data"]
    assert {w["name"]: w["behind"] for w in listed["witnesses"]} == {"archive": 0, "auditor": 0}
    assert listed["signed"] == size
    assert here(project, "worker", "--once", "--duty", "witnesses").out == "", "nothing is new"
    assert here(project, "run", "-p", "month_to=5").code == 0
    assert here(project, "worker", "--once", "--duty", "witnesses").code == 0
    assert held(project)[0] == size
    assert held(project)[1] > size


def test_what_a_witness_holds_is_a_checkpoint_of_this_log(here, project):
    here(project, "audit", "witness", "check")
    (path,) = (project / "archive").rglob("*.checkpoint")
    lines = here(project, "audit", "witness", "list", "--json").json()["data"]
    keys = [note.read_key(line) for line in lines["keys"]]
    told = tlog.read_checkpoint(note.open_note(path.read_bytes(), keys).text)
    assert (told.origin, told.size, told.root.hex()) == (
        lines["origin"], lines["signed"], lines["root"],
    )  # fmt: skip


def test_without_a_witness_the_list_says_what_that_means(here, workspace):
    out = here(workspace, "audit", "witness", "list").out
    assert "no witness" in out
    assert "could write it anew unseen" in out


def test_a_witness_that_is_away_holds_nothing_up(here, project):
    shutil.rmtree(project / "archive")
    done = here(project, "audit", "witness", "check")
    assert done.code == Exit.CONFLICT
    assert "there is no folder" in done.out
    assert "auditor" in done.out
    work = here(project, "worker", "--once", "--duty", "witnesses")
    assert work.code == 0
    assert "there is no folder" in work.out
    (project / "archive").mkdir()
    assert here(project, "audit", "witness", "check").code == Exit.OK
    assert here(project, "audit", "list", "--type", "log.", "--json").json()["data"]["events"] == []


def forge(project):
    """Somebody has shown the folder another log under this name."""
    data = Works.open(project)
    origin = data.log.origin
    data.close()
    (folder,) = (project / "archive").iterdir()
    for path in folder.iterdir():
        path.chmod(0o644)
        size = int(path.name.split(".")[0])
        other = GrowingLog(origin)
        path.write_bytes(other.note(other.head(size, fork=True)))


def test_a_refusal_stands_in_the_log_once_until_it_is_mended(here, project):
    assert here(project, "audit", "witness", "check").code == Exit.OK
    saved = shutil.copytree(project / "archive", project / "saved")
    forge(project)
    assert here(project, "run", "-p", "month_to=5").code == 0
    for _ in range(2):
        done = here(project, "audit", "witness", "check")
        assert done.code == Exit.UNVERIFIED
        assert "refuses" in done.out
    shutil.rmtree(project / "archive")
    shutil.copytree(saved, project / "archive")
    assert here(project, "audit", "witness", "check").code == Exit.OK
    told = here(project, "audit", "list", "--type", "log.", "--json").json()["data"]["events"]
    assert [event["type"] for event in told] == [
        "falaj.log.witness-confirmed", "falaj.log.witness-refused",
    ]  # fmt: skip
    assert told[1]["data"] == {"code": "audit.witness-refuses"}


def test_a_forked_store_is_refused_by_who_saw_the_first(here, project):
    """The database and the memory beside it are written anew: only the witness knows."""
    assert here(project, "audit", "witness", "check").code == Exit.OK
    sql(project, "DELETE FROM checkpoint", "DELETE FROM cosignature", "DELETE FROM log_waiting",
        "DELETE FROM log_leaf", "DELETE FROM log_node",
        "DELETE FROM event WHERE type = 'run.ok'",
        "INSERT INTO log_waiting SELECT id FROM event")  # fmt: skip
    (project / ".falaj" / "log.checkpoint").unlink()
    assert here(project, "run", "-p", "month_to=5").code == 0
    assert here(project, "audit", "verify").code == Exit.OK, "the log itself looks whole"
    done = here(project, "audit", "witness", "check")
    assert done.code == Exit.UNVERIFIED
    assert done.out.count("refuses") == 2


def test_a_worker_that_dies_between_witness_and_store_shows_it_again(project):
    works = Works.open(project)
    works.log.cover()
    Witnessing(works.ground, "one").turn(lambda: False)
    size = works.log.log.newest("archive").size
    works.close()
    sql(project, "DELETE FROM cosignature")
    works = Works.open(project)
    done = Witnessing(works.ground, "two").turn(lambda: False)
    assert len(done) == 2
    assert works.log.log.newest("archive").size == size
    assert works.log.log.search(Asked(type="log.")) == []
    works.close()


def test_two_workers_take_turns(project):
    works = Works.open(project)
    works.log.cover()
    lease = works.ground.store.take("witnesses", "somebody else", 60)
    assert Witnessing(works.ground, "me").turn(lambda: False) == []
    works.ground.store.release(lease)
    assert len(Witnessing(works.ground, "me").turn(lambda: False)) == 2
    works.close()


CONFIGS = {
    "a kind that is not known": ('kind = "mail"\nplace = "x"', "kind"),
    "no key of a witness that cosigns": ('kind = "http"\nplace = "https://w.example"', "key"),
    "no bucket": ('kind = "s3"\nplace = "https://s.example"', "bucket"),
    "plain HTTP": ('kind = "http"\nplace = "http://w.example"\nkey = "k"', "https://"),
    "a name in the address": (
        'kind = "http"\nplace = "https://a@w.example"\nkey = "k"',
        "https://",
    ),
    "an option for git": ('kind = "git"\nplace = "x"\nremote = "--upload-pack=x"', "option"),
    "an address in other signs": (
        'kind = "http"\nplace = "https://w.exa mple"\nkey = "k"',
        "https://",
    ),
}


@pytest.mark.parametrize(("lines", "named"), CONFIGS.values(), ids=CONFIGS)
def test_a_witness_that_cannot_be(here, workspace, lines, named):
    with (workspace / "falaj.toml").open("a") as file:
        file.write(f'\n[[audit.witnesses]]\nname = "w"\n{lines}\n')
    done = here(workspace, "audit", "witness", "list")
    assert done.code == Exit.USAGE
    assert "error[config." in done.err
    assert named in done.err


def test_a_key_that_is_none_is_told(here, workspace):
    log_key = note.write_key(GrowingLog("log/x/1").key)
    for key in ("abc", log_key):
        shutil.copy(workspace / "falaj.toml", workspace / "saved.toml")
        with (workspace / "falaj.toml").open("a") as file:
            file.write(
                '\n[[audit.witnesses]]\nname = "w"\nkind = "http"\n'
                f'place = "https://w.example"\nkey = "{key}"\n'
            )
        done = here(workspace, "audit", "witness", "list")
        assert done.code == Exit.USAGE
        assert "error[audit.bad-key]" in done.err
        shutil.copy(workspace / "saved.toml", workspace / "falaj.toml")


@pytest.mark.parametrize("data", [None, "", "one", "one two three"])
def test_credentials_that_are_none_are_told(here, workspace, data):
    if data is not None:
        (workspace / "secrets").write_text(data)
    with (workspace / "falaj.toml").open("a") as file:
        file.write(
            '\n[[audit.witnesses]]\nname = "w"\nkind = "s3"\nplace = "https://127.0.0.1:1"\n'
            'bucket = "b"\ncredentials_file = "secrets"\n'
        )
    done = here(workspace, "audit", "witness", "check", "--json")
    assert done.code == Exit.UNVERIFIED
    (told,) = json.loads(done.out)["data"]["witnesses"]
    assert told["code"] == "audit.witness-token"
    assert "two three" not in done.out


def test_an_empty_log_has_no_export(tmp_path):
    from falaj.audit.export import files_of
    from falaj.audit.service import Log
    from falaj.base import time
    from falaj.links.keyring.keys import KeyRing
    from falaj.links.sql.store import SqlStore

    store = SqlStore.open(tmp_path / "store.db")
    log = Log(
        store, store.log(), KeyRing(tmp_path / "keys"), project="p", now=time.now,
        memory=tmp_path / "memory",
    )  # fmt: skip
    with pytest.raises(FalajError) as caught:
        files_of(log)
    assert caught.value.code == "audit.log-empty"
    store.close()
