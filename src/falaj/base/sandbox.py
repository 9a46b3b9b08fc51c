"""A process that can do nothing but reckon: bubblewrap, with a seccomp filter and limits of its own.

No network (an empty network namespace, and no socket at all), a read-only root that holds the system,
the interpreter and its packages only, one folder, an identity of its own, no capability, no second
process, memory, file size and number of files bounded. What is handed to it beside its command are
the streams that it inherits.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["WORK", "Limits", "absent", "ended", "name_of", "started"]

NOBODY: Final = "65534"
WORK: Final = "/job"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """memory_mb: address space of the process. file_mb: of each file that it writes.

    seconds: of its whole life, and of the CPU; 0: it lives until it is ended.
    """

    memory_mb: int = 4096
    seconds: float = 300.0
    file_mb: int = 1024
    files: int = 256


def absent() -> str:
    """Why there is no sandbox on this machine; empty when there is one."""
    program = shutil.which("bwrap")
    if program is None:
        return "the program bwrap (bubblewrap) is not installed"
    if platform.system() != "Linux" or platform.machine() not in FILTERS:
        return f"no filter of system calls is known for {platform.machine()}"
    words = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    tried = subprocess.run(words, capture_output=True, check=False, timeout=30)
    if tried.returncode != 0:
        told = tried.stderr.decode(errors="replace").strip().splitlines() or ["it ended"]
        return f"bubblewrap cannot start here: {told[-1][:200]}"
    return ""


def started(
    python: Path,
    arguments: Sequence[str],
    folder: Path,
    limits: Limits,
    *,
    writable: bool,
    stdin: IO[Any] | int = subprocess.DEVNULL,
    stdout: IO[Any] | int = subprocess.DEVNULL,
    stderr: IO[Any] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `python ARGUMENTS` inside, with `folder` at WORK. The caller asked `absent` before.

    Whoever ends it kills its process group: with its namespace everything in it ends.
    """

    def bounded() -> None:
        for kind, most in (
            (resource.RLIMIT_AS, limits.memory_mb << 20),
            (resource.RLIMIT_CPU, int(limits.seconds) + 5 if limits.seconds else 0),
            (resource.RLIMIT_FSIZE, limits.file_mb << 20),
            (resource.RLIMIT_NOFILE, limits.files),
            (resource.RLIMIT_CORE, 0),
        ):
            if most or kind == resource.RLIMIT_CORE:
                resource.setrlimit(kind, (most, most))

    with tempfile.TemporaryFile() as rules:
        rules.write(FILTERS[platform.machine()]())
        rules.seek(0)
        return subprocess.Popen(
            [*words(python, folder, rules.fileno(), writable=writable), str(python), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={"PATH": "/usr/bin:/bin"},
            pass_fds=(rules.fileno(),),
            preexec_fn=bounded,  # noqa: PLW1509 setrlimit alone; before anything of the child runs
            start_new_session=True,
        )


def ended(child: subprocess.Popen[bytes]) -> None:
    """End it, now, with everything in it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def words(python: Path, folder: Path, rules: int, *, writable: bool) -> list[str]:
    """What bubblewrap is told. Of this machine's files only programs and libraries are there."""
    shown = ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache"]
    home = python.parent.parent
    packages = Path(__file__).parents[2]  # where this very package is imported from
    real = Path(os.path.realpath(python)).parent.parent
    asked = [Path(place) for place in shown]
    asked += [home, Path(sys.base_prefix), real, packages / "falaj"]
    binds: list[str] = []
    for place in dict.fromkeys(asked):
        if not os.path.lexists(place) or str(place) in {"/", "/usr/local"}:
            continue
        if place.is_symlink():
            binds += ["--symlink", str(place.readlink()), str(place)]
        else:
            binds += ["--ro-bind", str(place), str(place)]
    return [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        *("--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/tmp"),  # noqa: S108 inside
        *binds,
        *("--bind" if writable else "--ro-bind", str(folder), WORK, "--chdir", WORK),
        *("--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL", "--hostname", "sandbox"),
        *("--setenv", "HOME", WORK, "--setenv", "PATH", "/usr/bin:/bin"),
        *("--setenv", "LANG", "C.UTF-8", "--setenv", "PYTHONPATH", str(packages)),
        *("--setenv", "OPENBLAS_NUM_THREADS", "1", "--setenv", "OMP_NUM_THREADS", "1"),
        *(
            "--setenv",
            "JOBLIB_MULTIPROCESSING",
            "0",
            "--setenv",
            "PYTHONDONTWRITEBYTECODE",
            "1",
        ),
        *("--seccomp", str(rules)),
        "--",
    ]


def name_of(code: int) -> str:
    """128 + N is how bubblewrap tells that its child was ended by signal N."""
    number = -code if code < 0 else code - 128 if 128 < code < 128 + 65 else 0
    try:
        return signal.Signals(number).name if number else f"exit code {code}"
    except ValueError:
        return f"exit code {code}"


# --- seccomp: classic BPF, by hand ---------------------------------------------------------------
# Source: linux/audit.h, linux/seccomp.h, asm/unistd_64.h (x86-64), asm-generic/unistd.h (arm64).

LOAD, EQUAL, ALLSET, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE: Final = 0x00050000  # with an error number in the low half
EPERM, ENOSYS = 1, 38
THREAD: Final = 0x00010000  # CLONE_THREAD
X32: Final = 0x40000000


def program(audit: int, clone: int, clone3: int, refused: Sequence[int]) -> bytes:
    """Refuse some calls, and any clone that is no thread. Another architecture is the end."""
    lines: list[tuple[int, int, int, int]] = [
        (LOAD, 0, 0, 4),  # architecture
        (EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # number of the call
        (ALLSET, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        (EQUAL, 0, 1, clone3),  # glibc then takes clone, whose flags can be read
        (RETURN, 0, 0, REFUSE | ENOSYS),
        (EQUAL, 0, 4, clone),
        (LOAD, 0, 0, 16),  # flags
        (ALLSET, 1, 0, THREAD),
        (RETURN, 0, 0, REFUSE | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    for number in refused:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


# socket, socketpair, connect, bind, listen, accept; fork, vfork; ptrace, mount, umount2, pivot_root,
# chroot, unshare, setns, bpf, perf_event_open, userfaultfd, keyctl, add_key, request_key, io_uring,
# kexec_load, init_module, finit_module, process_vm_readv and _writev, kcmp, memfd_create, execveat
X86_64: Final = (
    *(41, 53, 42, 49, 50, 43, 288, 57, 58, 101, 165, 166, 155, 161, 272, 308, 321, 298, 323),
    *(250, 248, 249, 425, 426, 427, 246, 175, 313, 310, 311, 312, 319, 322),
)
ARM64: Final = (
    *(198, 199, 203, 200, 201, 202, 242, 117, 40, 39, 41, 51, 97, 268, 280, 241, 282),
    *(219, 217, 218, 425, 426, 427, 104, 105, 273, 270, 271, 272, 279, 281),
)
FILTERS: Final[dict[str, Callable[[], bytes]]] = {
    "x86_64": lambda: program(0xC000003E, 56, 435, X86_64),
    "aarch64": lambda: program(0xC00000B7, 220, 435, ARM64),
}
