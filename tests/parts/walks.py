"""Hands that do on a project what people type, and eyes that see what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from loans import MODEL, PLACE

from falaj.app import Works
from falaj.base.errors import FalajError
from falaj.doors.cli.client import Embedded

READER = "layla"  # the second identity


class Hands(NamedTuple):
    """A project and its API, as the owner and as the second identity."""

    root: Path
    works: Works
    owner: Embedded
    reader: Embedded


def hands(root):
    works = Works.open(root)
    return Hands(root, works, Embedded(works), Embedded(works, READER))


def made(by, version, **parameters):
    """Run, gate, release."""
    run = by.owner.post("/runs", {"parameters": parameters})
    by.owner.post("/gates", {"run": run["id"], "environment": PLACE})
    return by.owner.post("/releases", {"run": run["id"], "version": version})


def opened(by, version):
    return by.owner.post(
        f"/environments/{PLACE}/changes", {"release": version, "reason": f"bring {version}"}
    )


def approve(who, change, **other):
    """Sign what stands there now; `other` digests in its place."""
    seen = who.get(f"/changes/{change['id']}")["change"]
    shown = {f"shown_{name}": seen[name] for name in ("release", "evidence", "report")}
    return who.post(f"/changes/{change['id']}/approve", {"comment": "read it", **shown, **other})


def start(by, version):
    """An approved change of a release, and its rollout begun."""
    change = opened(by, version)
    approve(by.reader, change)
    return by.owner.post(f"/changes/{change['id']}/rollout")


def rollout_of(by, rollout):
    return by.owner.get(f"/rollouts/{rollout['id']}")["rollout"]


def turn(by, rollout, *, until=("promoted", "rolled-back"), seconds=20.0, when=None):
    """Do the worker's turns in this process until the rollout's phase is there, or `when` holds."""
    end = time.monotonic() + seconds
    while True:
        by.works.turn(frozenset({"rollouts"}))
        now = rollout_of(by, rollout)
        if now["phase"] in until or (when is not None and when(now)):
            return now
        assert time.monotonic() < end, f"still {now['phase']} at step {now['step']}: {now['why']}"
        time.sleep(0.05)


def wait(check, *, seconds=20.0, what="it"):
    """Look again and again until `check` gives something; others do the work."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, f"{what} was not seen in {seconds:.0f} s"
        time.sleep(0.05)


def over(by, rollout, *, seconds=40.0):
    """Wait until others have brought the rollout to its end."""

    def ended():
        now = rollout_of(by, rollout)
        return now if now["phase"] in ("promoted", "rolled-back", "aborted") else None

    return wait(ended, seconds=seconds, what=f"the end of {rollout['id']}")


def refused(call, *arguments, **named):
    """The refusal that a call ends with."""
    try:
        found = call(*arguments, **named)
    except FalajError as error:
        return error
    raise AssertionError(f"not refused: {found}")


def server(by):
    """What the target shows of its only server."""
    (found,) = by.owner.get(f"/environments/{PLACE}/servers")["servers"]
    return found


def server_of(by, number):
    """What the target shows of one of its servers."""
    found = by.owner.get(f"/environments/{PLACE}/servers")["servers"]
    return next(server for server in found if server["name"] == f"server-{number}")


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def let_leases_run_out(root):
    """Let every lease run out, as if its seconds had passed."""
    with contextlib.closing(sqlite3.connect(root / ".falaj" / "store.db")) as base, base:
        base.execute("UPDATE lease SET until_ms = 0")


def freeze(process, root):
    """Stop a worker, but never inside a transaction, where it would hold up everybody."""
    for _ in range(50):
        process.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(root / ".falaj" / "store.db", timeout=0.5)) as base:
            base.isolation_level = None
            try:
                base.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.03)
            else:
                base.execute("ROLLBACK")
                return
    raise AssertionError("always inside a transaction")


def flip(path, at=None):
    """Change one bit of one byte, in the middle when not said."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def falaj(root, *words, identity=""):
    """The command line, as a process: exit code, stdout, stderr."""
    who = ["--as", identity] if identity else []
    done = subprocess.run(
        [sys.executable, "-m", "falaj", *who, *map(str, words)],
        cwd=root,
        env=quiet(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def quiet():
    left = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "FALAJ_URL")
    }
    return left | {"NO_COLOR": "1", "COLUMNS": "200", "OPENBLAS_NUM_THREADS": "1"}


def begin(root, *words):
    """A command that goes on by itself; whoever starts it ends it by its pid."""
    with (root / "processes.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "falaj", *words],
            cwd=root,
            env=quiet(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def worker(root, *duties):
    return begin(root, "worker", "--every", "0.1", *(w for d in duties for w in ("--duty", d)))


def copied(base, to):
    shutil.copytree(base, to, symlinks=True)
    return to


def history(by):
    """Every event, in the order of the log."""
    found, after = [], -1
    while True:
        page = by.owner.get("/events", after=after, limit=1000)["events"]
        found += page
        if not page:
            return found
        after = page[-1]["place"]


def told(by, kind):
    """Subjects of all events of a kind, in order."""
    return [event["subject"] for event in history(by) if event["type"] == f"falaj.{kind}"]


def moves(by):
    """The ledger, oldest first."""
    return by.owner.get(f"/models/{MODEL}/moves", environment=PLACE)[::-1]


def decisions(by, rollout):
    """Of a rollout, oldest first."""
    return by.owner.get(f"/rollouts/{rollout['id']}", decisions=10_000)["decisions"][::-1]


def who(by, at=""):
    return by.owner.get(f"/models/{MODEL}/live", environment=PLACE, at=at)


def instant(text):
    return datetime.fromisoformat(re.sub("Z$", "+00:00", text))
