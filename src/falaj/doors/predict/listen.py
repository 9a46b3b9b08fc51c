"""The way in: plain or TLS, and who is turned away before a byte is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from falaj.base.tls import Contexts, peer_of
from falaj.doors.predict.http import Connection, Desk

__all__ = ["HANDSHAKES", "HANDSHAKE_S", "Handshake", "door"]

HANDSHAKES: Final = 64  # at a time; a handshake costs a millisecond of the loop
HANDSHAKE_S: Final = 10.0


def door(desk: Desk, contexts: Contexts | None = None) -> Callable[[], asyncio.Protocol]:
    """Make what `create_server` calls at each accept."""
    if contexts is None:
        return lambda: Connection(desk)
    return lambda: Handshake(desk, contexts)


class Handshake(asyncio.Protocol):
    """Counts and bounds handshakes, then hands the connection on. Each takes the newest context."""

    def __init__(self, desk: Desk, contexts: Contexts) -> None:
        self.desk = desk
        self.contexts = contexts
        self.early: list[bytes] = []
        self.ended = False
        self.gone = False
        self.address = ""

    def connection_made(self, transport: Any) -> None:
        desk = self.desk
        self.address = desk.address_of(transport)
        if desk.handshakes >= HANDSHAKES:
            desk.turn_away("handshakes")
            transport.abort()
            return
        if not desk.room(self.address):
            transport.abort()
            return
        transport.pause_reading()
        desk.handshakes += 1
        desk.enter(self.address)
        task = asyncio.get_running_loop().create_task(self._shake(transport))
        desk.tasks.add(task)
        task.add_done_callback(desk.tasks.discard)

    # Until the connection is handed on, what comes with the last flight of the handshake waits.

    def data_received(self, data: bytes) -> None:
        self.early.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.gone = True

    async def _shake(self, transport: Any) -> None:
        desk = self.desk
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self.contexts.current,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=5.0,
            )
        except (OSError, EOFError) as error:
            # With TLS 1.3 a refused client sees an empty answer: the reason is known here alone.
            reason = getattr(error, "reason", None) or type(error).__name__
            desk.turn_away("tls", str(reason))
            transport.abort()
            secure = None
        finally:
            desk.handshakes -= 1
            desk.leave(self.address)
        if secure is None:
            return
        if self.gone:
            secure.abort()
            return
        connection = Connection(desk)
        connection.peer = peer_of(secure.get_extra_info("ssl_object"))
        secure.set_protocol(connection)
        connection.connection_made(secure)
        for data in self.early:
            connection.data_received(data)
        if self.ended and not connection.gone and not connection.eof_received():
            secure.close()
