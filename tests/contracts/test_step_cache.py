"""The promises of ports/cache.py, over every adapter."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from falaj.base.process import is_gone, owner_here
from falaj.links.stepcache.cache import FileStepCache


@pytest.fixture(params=["sqlite"])
def cache(request, tmp_path):
    made = FileStepCache(tmp_path / "deep" / "cache.db")
    yield made
    made.close()


def test_an_entry_comes_back(cache):
    entry = {"outputs": [{"digest": "sha256:1", "rows": None}], "metrics": {"auc": 0.7}}
    assert cache.get("k") is None
    cache.put("k", "train", entry)
    assert cache.get("k") == entry


def test_the_first_entry_wins(cache):
    cache.put("k", "train", {"n": 1})
    cache.put("k", "train", {"n": 2})
    assert cache.get("k") == {"n": 1}


def test_a_forgotten_entry_can_be_put_again(cache):
    cache.put("k", "train", {"n": 1})
    cache.forget("k")
    cache.forget("k")
    assert cache.get("k") is None and cache.newest("train") is None
    cache.put("k", "train", {"n": 2})
    assert cache.get("k") == {"n": 2}


def test_the_newest_entry_of_a_step(cache):
    assert cache.newest("train") is None
    for n in range(3):
        cache.put(f"k{n}", "train", {"n": n})
        cache.put(f"l{n}", "load", {"n": 10 + n})
    assert cache.newest("train") == {"n": 2}
    cache.forget("k2")
    assert cache.newest("train") == {"n": 1}


def test_one_holds_the_claim_until_it_is_free(cache):
    assert cache.claim("k", "a", 60) == 1
    assert cache.claim("k", "b", 60) is None
    assert cache.claim("other", "b", 60) == 1
    assert cache.claim("k", "a", 60) == 1, "renewing keeps the fence"
    cache.free("k", "b")
    assert cache.claim("k", "b", 60) is None, "only the holder gives it back"
    cache.free("k", "a")
    assert cache.claim("k", "b", 60) == 2
    cache.free("k", "a")
    assert cache.claim("k", "a", 60) is None, "freeing a lost claim frees nothing"


def test_a_claim_that_ran_out_is_taken_with_a_higher_fence(cache):
    assert cache.claim("k", "a", 0.05) == 1
    time.sleep(0.1)
    assert cache.claim("k", "b", 60) == 2
    assert cache.claim("k", "a", 60) is None, "the old holder sees that it lost"


def test_a_claim_of_a_dead_process_is_taken_at_once(cache):
    code = "from falaj.base.process import owner_here; print(owner_here())"
    owner = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    assert is_gone(owner) and not is_gone(owner_here())
    assert cache.claim("k", owner, 600) == 1
    assert cache.claim("k", owner_here(), 600) == 2


FOREIGN = {
    "another machine": "other-host/1/1/x",
    "no process": "worker-7",
    "empty": "",
    "this process": owner_here(),
}


@pytest.mark.parametrize("owner", FOREIGN.values(), ids=FOREIGN)
def test_a_claim_is_never_taken_from_who_may_live(cache, owner):
    assert not is_gone(owner)
    if owner:
        assert cache.claim("k", owner, 600) == 1
        assert cache.claim("k", "me", 600) is None


def test_only_one_of_many_gets_the_claim(cache):
    got = []
    start = threading.Barrier(8)

    def ask(name):
        start.wait()
        got.append(cache.claim("k", name, 60))
        cache.close()

    threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=str) == [1, *[None] * 7]


def test_memos(cache):
    assert cache.memo("ast", "k") is None
    cache.remember("ast", "k", "v")
    cache.remember("ast", "k", "w")
    assert cache.memo("ast", "k") == "w" and cache.memo("other", "k") is None


def test_another_process_sees_the_same(cache):
    cache.put("k", "train", {"n": 1})
    code = (
        "import sys, pathlib\nfrom falaj.links.stepcache.cache import FileStepCache\n"
        "c = FileStepCache(pathlib.Path(sys.argv[1]))\nprint(c.get('k'))\nc.put('l', 's', {'m': 2})"
    )
    told = subprocess.check_output([sys.executable, "-c", code, os.fspath(cache.path)], text=True)
    assert told.strip() == "{'n': 1}" and cache.get("l") == {"m": 2}


def test_a_new_file_that_another_process_is_opening_is_waited_for(tmp_path):
    path = tmp_path / "new.db"
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.execute("begin exclusive")
    first.execute("create table other(x)")
    later = threading.Timer(0.3, first.execute, ("commit",))
    later.start()
    cache = FileStepCache(path)
    cache.put("k", "train", {"n": 1})
    assert cache.get("k") == {"n": 1}
    later.join()
    first.close()
