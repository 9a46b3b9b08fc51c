"""What servers log is sealed: it is joined and watched all the same, and ends with its key."""

from __future__ import annotations

import loans
import pytest
import walks
from traffic import Traffic

from falaj.base.fenc import MAGIC
from falaj.facts.rollouts import Deployment

SEALED = '\n[encryption]\nat_rest = "all"\n'


@pytest.fixture
def by(prepared, tmp_path, at):
    root = walks.copied(prepared, tmp_path / "loans")
    (root / "falaj.toml").write_text(loans.TOML + loans.LEARNING + SEALED)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    with Traffic(walks.server(by)["url"]) as traffic:
        walks.wait(lambda: len(traffic.answered) > 200, what="requests")
    return by


def spool_of(by):
    return by.works.ground.targets["local"].spool(loans.PLACE)


def logs(by):
    return sorted(spool_of(by).glob("log-*"))


def scope(by):
    (found,) = {
        one["scope"] for one in by.owner.get("/scopes") if one["scope"].startswith("inference/")
    }
    return found


def seen(by):
    """Rows that this worker reads, and what it says of the rest."""
    watch = by.works._watch
    return list(watch._log(spool_of(by), {})), watch._not_read()


def test_sealed_answers_are_watched_and_the_server_has_no_key_for_them(by):
    by.works.turn()
    walks.wait(lambda: len(seen(by)[0]) > 200, what="rows")
    _, said = seen(by)
    assert said == []
    assert all(path.read_bytes().startswith(MAGIC) for path in logs(by))
    plan = by.works.ground.store.find(Deployment)[0].plan
    assert plan.log_key.scope == scope(by)
    place = spool_of(by).parent
    held = by.works.ground.scopes.reading(plan.log_key.scope, plan.log_key.version)
    for path in place.rglob("*"):
        if path.is_file():
            assert held not in path.read_bytes()
            assert not path.name.endswith((".key", ".pem"))


def test_an_altered_segment_is_named_once_and_its_rows_are_not_counted(by):
    by.works.ground.targets["local"].stop(loans.PLACE)
    (path,) = logs(by)
    before, _ = seen(by)
    walks.flip(path, path.stat().st_size - 40)
    said = by.works.turn()
    assert any(path.name in line and "was altered" in line for line in said), said
    after, again = seen(by)
    assert len(after) < len(before)
    assert again == [], "said once"


def test_an_erased_key_ends_the_answers_and_the_servers_get_a_new_one(by):
    by.works.turn()
    old = by.works.ground.store.find(Deployment)[0]
    by.owner.post("/erasures", {"scope": scope(by), "reason": "asked to"})
    rows, said = seen(by)
    assert rows == []
    assert any(
        "was erased" in line and logs(by)[0].name.removesuffix(".part") in line for line in said
    )
    # Rows under the old key are lost until the servers have the new one.
    walks.wait(lambda: by.works.turn() is not None and walks.server(by)["plan_seq"] > old.seq)
    new = by.works.ground.store.find(Deployment)[0].plan.log_key
    assert (new.scope, new.version) == (old.plan.log_key.scope, old.plan.log_key.version + 1)
    assert new.public != old.plan.log_key.public
    with Traffic(walks.server(by)["url"]) as traffic:
        walks.wait(lambda: len(traffic.answered) > 50, what="requests")
    walks.wait(lambda: seen(by)[0], what="rows under the new key")
    by.works.turn()
    again = by.works.ground.store.find(Deployment)[0]
    assert again.plan.log_key == new, "one key a month, not one a turn"


def test_other_projects_log_in_the_clear_as_before(project):
    walks.turn(project, walks.start(project, "1.0.0"))
    assert project.works.ground.store.find(Deployment)[0].plan.log_key is None
