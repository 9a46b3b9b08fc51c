"""`python -m falaj.doors.predict`: the data plane of one environment, or of one folder."""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import ipaddress
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from falaj.base import time
from falaj.base.digests import of_file, short
from falaj.base.errors import Conflict, FalajError, NotAllowed, Problem
from falaj.facts.serving import ArmPlan, ModelPlan, SplitPlan, TrafficPlan
from falaj.releases.verify import read_manifest

if TYPE_CHECKING:
    from falaj.base.tls import TlsFiles
    from falaj.doors.predict.rpc import RpcSettings

__all__ = ["main", "serve_folder"]

# Of the supervisor alone; a worker gets all the others.
SUPERVISOR: Final = ("--workers", "--lock-fd", "--port")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the signed plan in ROOT. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "falaj.doors.predict", description=main.__doc__, allow_abbrev=False
    )
    parser.add_argument("--root", type=Path, required=True, help="holds plan.json and releases/")
    parser.add_argument("--trust", type=Path, required=True, help="the trust root, trust.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="server-1")
    parser.add_argument("--lock-fd", type=int, default=-1, help="an open, locked NAME.lock")
    parser.add_argument("--grpc-port", type=int, help="serve gRPC, too; 0 takes a free port")
    parser.add_argument("--grpc-reflection", action="store_true", help="tell tools the messages")
    parser.add_argument("--grpc-cert", default="", help="PEM; with --grpc-key: TLS")
    parser.add_argument("--grpc-key", default="", help="PEM")
    parser.add_argument(
        "--grpc-clients", default="", help="PEM: authorities of client certificates"
    )
    parser.add_argument("--tls-cert", type=Path, help="PEM; with --tls-key: HTTPS")
    parser.add_argument("--tls-key", type=Path, help="PEM, without a password")
    parser.add_argument("--tls-clients", type=Path, help="PEM: authorities of client certificates")
    parser.add_argument("--tls-required", action="store_true", help="no client without one")
    parser.add_argument(
        "--plain-beyond-loopback",
        action="store_true",
        help="speak plain HTTP on --host: tokens and rows can be read on the way",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="that many, supervised; 0: this process alone"
    )
    parser.add_argument("--drain-s", type=float, default=0.3, help="not ready before it closes")
    parser.add_argument(
        "--idle-s", type=float, default=5.0, help="a kept connection has for its last request"
    )
    parser.add_argument("--reverify-s", type=float, default=3600.0)
    parser.add_argument(
        "--max-queue-ms", type=float, default=50.0, help="predicted work that may wait"
    )
    parser.add_argument("--listen-fd", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--control-fd", type=int, default=-1, help=argparse.SUPPRESS)
    words = list(sys.argv[1:] if argv is None else argv)
    asked = parser.parse_args(words)
    try:
        inside = is_loopback(asked.host)
        if not (inside or asked.tls_cert or asked.plain_beyond_loopback):
            raise plain(asked.host)
        if not (
            inside or asked.grpc_port is None or asked.grpc_cert or asked.plain_beyond_loopback
        ):
            raise plain(asked.host)
        if asked.listen_fd >= 0:
            return alone(asked)  # a worker: its supervisor holds the lock
        with held(asked.root, asked.name, asked.lock_fd):
            return supervised(asked, words) if asked.workers > 0 else alone(asked)
    except FalajError as error:
        tell(error.problems)
        leave_word(asked.root / f"{asked.name}.failed", str(error))
        return error.exit


def alone(asked: argparse.Namespace) -> int:
    """Serve in this process, or as one of many workers."""
    from falaj.doors.predict.server import Settings, serve

    settings = Settings(
        root=asked.root,
        spool=asked.root / "spool",
        trust=asked.trust,
        host=asked.host,
        port=asked.port,
        name=asked.name,
        shared_port=True,
        drain_s=asked.drain_s,
        idle_s=asked.idle_s,
        reverify_s=asked.reverify_s,
        max_queue_ms=asked.max_queue_ms,
        listen_fd=asked.listen_fd,
        control_fd=asked.control_fd,
        rpc=rpc_settings(asked),
        tls=tls_files(asked),
        known_only=not is_loopback(asked.host),
    )
    code: int = serve(settings)
    return code


def supervised(asked: argparse.Namespace, words: Sequence[str]) -> int:
    """Serve by workers. Nothing heavy is imported here: no model, no arrays."""
    import asyncio

    from falaj.doors.predict.supervisor import Supervised, Supervisor

    arguments = without(words, SUPERVISOR)
    if asked.grpc_port == 0:
        arguments += ["--grpc-port", str(free_port(asked.host))]  # the last one counts
    how = Supervised(
        root=asked.root,
        name=asked.name,
        host=asked.host,
        port=asked.port,
        workers=asked.workers,
        arguments=arguments,
        secure=asked.tls_cert is not None,
        leave_s=asked.drain_s + asked.idle_s + 15.0,
    )
    return asyncio.run(Supervisor(how).run())


def free_port(host: str) -> int:
    """Choose a port for all workers: each of them would choose one of its own."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as chosen:
        chosen.bind((host, 0))
        port: int = chosen.getsockname()[1]
        return port


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments but for some options, written as two words or with an equals sign."""
    found: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif word.partition("=")[0] not in options:
            found.append(word)
    return found


def rpc_settings(asked: argparse.Namespace) -> RpcSettings | None:
    """How gRPC is asked for. Raises FalajError: a certificate without its key."""
    if asked.grpc_port is None:
        return None
    from falaj.doors.predict.rpc import RpcSettings

    if bool(asked.grpc_cert) != bool(asked.grpc_key) or (
        asked.grpc_clients and not asked.grpc_cert
    ):
        raise FalajError(
            "serving.tls-files",
            "certificate of gRPC: certificate and key belong together, authorities to both",
            fix="give --grpc-cert and --grpc-key",
        )
    return RpcSettings(
        host=asked.host,
        port=asked.grpc_port,
        shared_port=True,
        reflection=asked.grpc_reflection,
        certificate=asked.grpc_cert,
        key=asked.grpc_key,
        clients=asked.grpc_clients,
    )


def serve_folder(folder: Path, trust: Path, port: int, grpc_port: int | None = None) -> int:
    """Serve one release folder without a control plane: stable only, loopback only."""
    from falaj.doors.predict.rpc import RpcSettings
    from falaj.doors.predict.server import Settings, serve

    try:
        manifest = folder / "release.json"
        try:
            release = of_file(manifest)
            model = read_manifest(manifest.read_bytes()).model
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise FalajError(
                "serving.no-release",
                f"{manifest}: {words}",
                why="a release folder has a release.json",
                fix="give the folder that `falaj release` made",
            ) from None
        arm = ArmPlan(release=release, folder=f"releases/{short(release)}")
        split = SplitPlan(salt=base64.b64encode(os.urandom(32)).decode())
        plan = TrafficPlan(
            seq=0,
            environment="folder",
            zone="local",
            issued=time.now(),
            models={model: ModelPlan(stable=arm, split=split)},
        )
        with tempfile.TemporaryDirectory(prefix="falaj-serve-") as root:
            rpc = None if grpc_port is None else RpcSettings(port=grpc_port, reflection=True)
            settings = Settings(
                root=Path(root), spool=Path(root, "spool"), trust=trust, port=port, rpc=rpc
            )
            code: int = serve(settings, (plan, {release: folder}))
            return code
    except FalajError as error:
        tell(error.problems)
        return error.exit


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plain(host: str) -> NotAllowed:
    """Plain text stays on this machine, unless somebody says otherwise."""
    return NotAllowed(
        "serving.plain",
        f"host: got {host!r}, expected a loopback address, or TLS",
        why="tokens and rows would travel in the clear",
        fix="give --tls-cert and --tls-key (and --grpc-cert, --grpc-key), or say "
        "--plain-beyond-loopback where something else protects the way",
    )


def tls_files(asked: argparse.Namespace) -> TlsFiles | None:
    """How TLS is asked for. Raises FalajError: a part is missing."""
    if not (asked.tls_cert or asked.tls_key or asked.tls_clients or asked.tls_required):
        return None
    from falaj.base.tls import TlsFiles

    if not (asked.tls_cert and asked.tls_key) or (asked.tls_required and not asked.tls_clients):
        raise FalajError(
            "serving.tls-files",
            "TLS: certificate and key belong together, and required clients need authorities",
            fix="give --tls-cert and --tls-key, and with --tls-required also --tls-clients",
        )
    return TlsFiles(
        certificate=asked.tls_cert,
        key=asked.tls_key,
        clients=asked.tls_clients,
        required=asked.tls_required,
    )


@contextlib.contextmanager
def held(root: Path, name: str, handle: int) -> Iterator[None]:
    """Hold NAME.lock while the process lives: two servers of one name would share files.

    A target hands the lock over already taken, so that no moment is without an owner.
    """
    if handle < 0:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Conflict(
                "serving.running",
                f"{name} runs already in {root.name}",
                fix="choose another --name, or stop the one that runs",
            ) from None
    try:
        yield
    finally:
        os.close(handle)


def tell(problems: Sequence[Problem]) -> None:
    for problem in problems:
        print(f"error[{problem.code}]: {problem.message}", file=sys.stderr)
        if problem.why:
            print(f"  why: {problem.why}", file=sys.stderr)
        if problem.fix:
            print(f"  fix: {problem.fix}", file=sys.stderr)


def leave_word(path: Path, words: str) -> None:
    """Let whoever watches this folder say why no server runs."""
    with contextlib.suppress(OSError):
        path.write_bytes(msgspec.json.encode({"problem": words, "at": time.text(time.now())}))
