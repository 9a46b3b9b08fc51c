"""A network of its own holds what it promises; a suite that relies on it would not notice."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import closed
import pytest

import parts

SWALLOWED = """
import socket
for kind, address in ((socket.SOCK_STREAM, ("192.0.2.1", 80)), (socket.SOCK_DGRAM, ("192.0.2.1", 53))):
    try:
        socket.socket(socket.AF_INET, kind).connect(address)
    except OSError:
        pass
"""
SIX = """
import socket
try:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect(("2001:db8::1", 80))
except OSError:
    pass
"""
TALKS_HERE = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
print("uid", os.getuid())
raise SystemExit(7)
"""
# A child in a session of its own, which says every 0.1 s that it lives.
LEAVES_A_CHILD = """
import subprocess, sys
beats = "import sys, time\\nwhile True:\\n    open(sys.argv[1], 'a').write('.'); time.sleep(0.1)"
subprocess.Popen([sys.executable, "-c", beats, sys.argv[1]], start_new_session=True)
import time; time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def permitted():
    if why := closed.forbidden():
        parts.absent("network", why)


def run(program, tmp_path, *words, within_s=60):
    words = [sys.executable, "-c", program, *map(str, words)]
    return closed.run(words, count_in=tmp_path, within_s=within_s)


@pytest.mark.parametrize("program", [SWALLOWED, SIX], ids=["IPv4", "IPv6"])
def test_an_attempt_to_leave_is_counted_though_it_is_swallowed(tmp_path, program):
    done = run(program, tmp_path)
    assert done.code == 0, done.text
    assert done.outside > 0


def test_loopback_serves_and_the_exit_code_comes_through(tmp_path):
    done = run(TALKS_HERE, tmp_path)
    assert (done.code, done.outside) == (7, 0)
    assert done.text == "uid 1000\n"


def still_beats(file):
    before = file.stat().st_size
    time.sleep(0.5)
    return file.stat().st_size > before


def test_its_end_is_the_end_of_every_child(tmp_path):
    done = run(LEAVES_A_CHILD, tmp_path, tmp_path / "beats", 1)
    assert done.code == 0, done.text
    assert Path(tmp_path, "beats").stat().st_size > 0
    assert not still_beats(tmp_path / "beats")


def test_what_takes_too_long_is_ended_and_its_output_is_told(tmp_path):
    program = 'print("said", flush=True)\n' + LEAVES_A_CHILD
    with pytest.raises(AssertionError, match="after 2 s: said"):
        run(program, tmp_path, tmp_path / "beats", 100, within_s=2)
    assert not still_beats(tmp_path / "beats")
