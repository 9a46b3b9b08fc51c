"""Declared against observed: what of an environment's servers is not as its plan says. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from falaj.facts.rollouts import Deployment
from falaj.facts.serving import Observed, ObservedServer

__all__ = ["drifted"]

SETTLE_S: Final = 5.0  # how long a server may take for a new plan before that is worth a word

Said = tuple[tuple[str, dict[str, Any]], ...]


def drifted(
    deployment: Deployment, observed: Observed, *, now: datetime
) -> tuple[Deployment, Said]:
    """What is remembered of the servers now, and what is to be said: `drifted`, `repaired`.

    1. A server is remembered from the first time that it is ready.
    2. One that was ready and is not any more, or answers with something else, has drifted.
    3. One that is ready again under another boot was ended and started between two looks.
    4. What drifted is said once, and once more when it is as declared again.
    5. A release that was changed in its folder was put back: that is said, with its files.
    """
    servers, amiss, said = dict(deployment.servers), dict(deployment.amiss), []
    names = {server.name for server in observed.servers}
    for server in observed.servers:
        known = servers.get(server.name, "")
        what = trouble(deployment, server, known, now)
        if what and server.name not in amiss:
            said.append(("drifted", {"server": server.name, "what": what, "boot": known}))
            amiss[server.name] = what
        if not server.ready:
            continue
        if known and known != server.boot and server.name not in amiss:
            what = "its process was ended, and another one runs"
            said.append(("drifted", {"server": server.name, "what": what, "boot": known}))
            amiss[server.name] = what
        if amiss.get(server.name) and not trouble(deployment, server, known, now):
            was = amiss.pop(server.name)
            said.append(("repaired", {"server": server.name, "what": was, "boot": server.boot}))
        servers[server.name] = server.boot
    servers = {name: boot for name, boot in servers.items() if name in names}
    amiss = {name: what for name, what in amiss.items() if name in names}
    for at, differing in observed.changed.items():
        if at not in deployment.told:
            what = f"changed by hand, set aside and put back: {differing}"
            said.append(("tampered", {"release": at.partition("@")[0], "what": what}))
    told = tuple(sorted(observed.changed))
    return replace(deployment, servers=servers, amiss=amiss, told=told), tuple(said)


def trouble(deployment: Deployment, server: ObservedServer, known: str, now: datetime) -> str:
    """In words what is not as declared; nothing where it is, or was never ready yet."""
    if not known:
        return ""
    if not server.pid:
        return f"its process is gone: {server.problem}" if server.problem else "its process is gone"
    if server.problem:
        return server.problem
    if not server.ready:
        return "it does not answer"
    settled = (now - deployment.since).total_seconds() > SETTLE_S
    if server.plan_seq != deployment.seq and settled:
        return f"it runs plan {server.plan_seq}, declared is {deployment.seq}"
    declared = {name: model.stable.release for name, model in deployment.plan.models.items()}
    if server.plan_seq == deployment.seq and server.live != declared:
        return "it answers with another release than declared"
    return ""
