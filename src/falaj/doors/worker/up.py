"""`falaj up`: the API and the worker in one process."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from falaj.app import DUTIES
from falaj.base.errors import FalajError
from falaj.doors.api.app import create
from falaj.doors.worker.loop import work
from falaj.facts.data import PROTECTED

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["serve"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(works: Works, *, host: str, port: int, worker: bool, say: Callable[[str], object]) -> int:
    """Serve until interrupted. Plain HTTP is for loopback and for data below class personal."""
    refuse_plain(works, host)
    server = uvicorn.Server(
        uvicorn.Config(
            create(works, embedded=False),
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # on by default, and then anybody can claim any address
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )
    # Also for what comes before uvicorn listens to signals, and for the one that it sends itself
    # again when it is done: the end is ours, so that all is closed.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    listener = listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    say(f"falaj is up on {address}  (project {works.ground.name})")
    say(f"  export FALAJ_URL={address}; falaj access token > token; export FALAJ_TOKEN_FILE=token")
    stop = threading.Event()
    helper = threading.Thread(
        target=work,
        args=(works,),
        kwargs={"every": 0.5, "duties": DUTIES, "say": say, "stop": stop},
        daemon=True,
    )
    if worker:
        helper.start()
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        if worker:
            helper.join(timeout=10)
    return 0


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise FalajError(
            "cli.no-port",
            f"port {port} on {host} cannot be opened: {error.strerror}",
            why="another program, perhaps another `falaj up`, listens there",
            fix="end it, or take another one: `falaj up --port 0`",
        ) from None


def refuse_plain(works: Works, host: str) -> None:
    if host not in LOOPBACK:
        raise FalajError(
            "cli.plain-http",
            f"{host} is not this machine alone, and there is no TLS here",
            why="tokens and data would travel in the clear",
            fix="use 127.0.0.1, and a proxy with TLS in front",
        )
    protected = [d.name for d in works.ground.project.datasets if d.classification in PROTECTED]
    if protected:
        raise FalajError(
            "cli.plain-http",
            f"dataset {protected[0]!r} is of class personal or above",
            why="with such data even loopback needs TLS",
            fix="work in embedded mode, without `falaj up`",
        )
