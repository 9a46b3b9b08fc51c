"""What code of others can do in the sandbox: reckon, and write into its one folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import parts
from falaj.base.errors import FalajError
from falaj.base.sandbox import Limits, absent, name_of
from falaj.links.bubblewrap.sandbox import Bubblewrap

SMALL = Limits(memory_mb=512, seconds=20, file_mb=1, files=64)


@pytest.fixture
def inside(tmp_path):
    """Run Python inside; returns (reason why it did not end well, what it said in `out`)."""
    why = absent()
    if why:
        parts.absent("bubblewrap", why)
    folder = tmp_path / "work"
    folder.mkdir()

    def run(code, limits=SMALL):
        ended = Bubblewrap(limits=limits).run(["-I", "-c", code], folder)
        out = folder / "out"
        return ended, out.read_text() if out.exists() else ""

    return run


TRY = """
def tried(function):
    try:
        function()
        return "done"
    except BaseException as error:
        return type(error).__name__
def say(*words): open("/job/out", "w").write(" ".join(map(str, words)))
"""


def test_it_reckons_and_writes_into_its_folder(inside):
    assert inside(TRY + "say(6 * 7)") == ("", "42")


def test_there_is_no_network(inside):
    code = """
import socket
say(tried(lambda: socket.socket()), tried(lambda: socket.socket(socket.AF_UNIX)),
    tried(lambda: socket.socketpair()), tried(lambda: socket.create_connection(("127.0.0.1", 80))),
    tried(lambda: socket.getaddrinfo("example.org", 80)))
"""
    ended, said = inside(TRY + code)
    assert ended == ""
    assert "done" not in said


def test_nothing_outside_can_be_written(inside, tmp_path):
    places = [
        "/usr/x",
        "/etc/x",
        "/x",
        "/opt/x",
        "/proc/x",
        str(tmp_path / "x"),
        str(Path(__file__).resolve()),
    ]
    code = f"say(*(tried(lambda: open(place, 'w')) for place in {places!r}))"
    ended, said = inside(TRY + code)
    assert ended == ""
    # Its own root is a file system in memory that nobody else sees: what is made there is gone.
    assert said.split()[0] == "OSError"
    assert not any(Path(place).exists() for place in places[:-1])
    assert Path(__file__).read_text().startswith('"""What code')


def test_nothing_of_this_machine_is_read(inside, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("FALAJ_SECRET", "secret")
    places = [
        str(secret),
        "/etc/passwd",
        "/etc/shadow",
        str(Path("~/.ssh").expanduser()),
        "/var",
        "/home",
    ]
    code = f"""
import os
say(any(os.path.exists(place) for place in {places!r}), "FALAJ_SECRET" in os.environ,
    sorted(os.listdir("/job")), len([p for p in os.listdir("/proc") if p.isdigit()]))
"""
    ended, said = inside(TRY + code)
    assert ended == ""
    assert said.startswith("False False []")
    assert int(said.split()[-1]) <= 3  # bubblewrap and this one alone


def test_it_is_nobody_without_a_capability(inside):
    code = """
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
import os
say(os.getuid(), status["CapEff"].strip(), status["NoNewPrivs"], status["Seccomp"])
"""
    assert inside(TRY + code) == ("", "65534 0000000000000000 1 2")


def test_there_is_no_second_process(inside):
    code = """
import os, subprocess, multiprocessing
say(tried(os.fork), tried(lambda: subprocess.run(["/bin/true"])), tried(lambda: os.system("true") and 1/0),
    tried(lambda: os.posix_spawn("/bin/true", ["true"], {})))
"""
    ended, said = inside(TRY + code)
    assert ended == ""
    assert said.split() == [
        "PermissionError",
        "PermissionError",
        "ZeroDivisionError",
        "PermissionError",
    ]


def test_a_fork_bomb_makes_nothing(inside):
    code = """
import os
made = 0
for _ in range(10_000):
    try:
        os.fork()
        made += 1
    except OSError:
        pass
say(made)
"""
    assert inside(TRY + code) == ("", "0")


def test_threads_are_allowed(inside):
    code = "import threading; t = threading.Thread(target=lambda: say('ran')); t.start(); t.join()"
    assert inside(TRY + code) == ("", "ran")


def test_memory_is_bounded(inside):
    assert inside(TRY + "say(tried(lambda: bytearray(2 << 30)))") == ("", "MemoryError")


def test_time_is_bounded(inside):
    begun = time.monotonic()
    ended, _ = inside("while True: pass", Limits(seconds=1.0))
    assert ended.startswith("it took more than 1 s")
    assert time.monotonic() - begun < 10


def test_what_sleeps_is_ended_too(inside):
    ended, _ = inside("import time; time.sleep(600)", Limits(seconds=1.0))
    assert ended.startswith("it took more than 1 s")


def test_files_are_bounded(inside):
    ended, said = inside(TRY + "say(tried(lambda: open('/job/big', 'wb').write(b'x' * (4 << 20))))")
    assert "done" not in said, ended
    code = "say(tried(lambda: [open('/job/out') for _ in range(100_000)]))"
    assert inside(TRY + "say()\n" + code) == ("", "OSError")


def test_namespaces_and_tracing_are_closed(inside):
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
say(libc.unshare(0x10000000), libc.ptrace(0, 0, 0, 0), libc.mount(b"x", b"/", b"tmpfs", 0, None),
    libc.syscall(319, b"x", 0), libc.syscall(425, 8, None))
"""
    assert inside(TRY + code) == ("", "-1 -1 -1 -1 -1")


def test_a_crash_is_told(inside):
    ended, _ = inside("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.startswith("it ended with")
    ended, _ = inside("raise SystemExit('I could not')")
    assert ended == "it ended with exit code 1: I could not"
    assert name_of(137) == "SIGKILL"


def test_no_program_no_conversion(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in absent()
    with pytest.raises(FalajError) as refused:
        Bubblewrap().run(["-c", ""], tmp_path)
    assert refused.value.code == "convert.no-sandbox"
    assert "bubblewrap" in refused.value.problems[0].fix
