"""The whole way to a served answer opens no connection beyond this machine.

Every Python process of the walk carries an audit hook that writes down each address it wants to
reach, also when the attempt is swallowed. Where the kernel permits, the walk runs in a network
namespace with loopback alone, so what escapes the hook could not leave either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
    elif event == "socket.getaddrinfo":
        address = args[0]
    else:
        return
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if isinstance(host, str) and (host.startswith(("127.", "/", "\\0")) or host in ("::1", "localhost", "")):
        return
    line = f"{event} {host} {sys.argv[:3]}\\n".encode()
    handle = os.open(os.environ["WANTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line)
    os.close(handle)
sys.addaudithook(watch)
"""

WALK = """
set -eu
falaj="$PYTHON -m falaj"
$falaj init project >/dev/null
cd project
$falaj run >/dev/null
$falaj gate >/dev/null
$falaj access add layla --role approver >/dev/null
$falaj release create >/dev/null
$falaj change open >/dev/null
$falaj --as layla approve -m read >/dev/null
$falaj rollout start --watch >/dev/null
$PYTHON - <<'PY'
import json, os, urllib.request
from falaj.app import Works
from pathlib import Path
works = Works.open(Path())
target = works.ground.targets["local"]
url = target.observe("production").servers[0].url
row = {"hour": 18, "minute": 30, "weekday": 5, "distance": 1000, "carrier": 1, "origin": 0,
       "departures": 25}
body = json.dumps({"rows": [row]}).encode()
with urllib.request.urlopen(urllib.request.Request(url + "/predict", body)) as answer:
    print(json.load(answer)["predictions"][0]["probability"])
target.stop("production")
PY
$falaj evidence export flight-delay >/dev/null
$falaj verify evidence.zip --trust evidence.trust.json >/dev/null
"""


def closed() -> list[str]:
    """A namespace with loopback alone, or nothing where the kernel forbids it."""
    words = ["unshare", "--user", "--map-root-user", "--net", "--kill-child"]
    tried = subprocess.run(
        [*words, "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        print("network not closed: no user namespaces here")
        return ["bash", "-c"]
    return [*words, "bash", "-c", 'ip link set lo up; exec bash -c "$0"']


def walk(script: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    wanted = folder / "wanted"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(hook),
        "WANTED": str(wanted),
    }
    done = subprocess.run(
        [*closed(), script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done, wanted.read_text() if wanted.exists() else ""


@pytest.mark.journey
def test_a_model_reaches_production_without_one_outside_connection(tmp_path):
    done, wanted = walk(WALK, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 0 < float(done.stdout.strip().splitlines()[-1]) < 1
    assert wanted == ""


PLANTED = """
$PYTHON -c '
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=0.2)
except OSError:
    pass
'
"""


def test_a_swallowed_attempt_is_written_down(tmp_path):
    done, wanted = walk(PLANTED, tmp_path)
    assert done.returncode == 0
    assert "192.0.2.1" in wanted
