"""The log as files that any reader of tiled logs can serve: https://c2sp.org/tlog-tiles."""

from __future__ import annotations

from typing import Final

from falaj.audit.offline import CHECKPOINT, EVENTS, LONGEST
from falaj.audit.service import Log
from falaj.base import merkle, note, tlog
from falaj.base.errors import NotFound

__all__ = ["files_of"]

README: Final = """\
An audit log of Falaj

  checkpoint          how many events, the root over them, signed (c2sp.org/signed-note)
  events.jsonl        every event in its order, one a line; each line is an entry of the tree
  tile/<L>/<N>        hashes of the tree (c2sp.org/tlog-tiles)
  tile/entries/<N>    the same events as bundles of entries; left out where one is too long for it
  keys.txt            the keys that may sign here now, for information only

Check it with keys that came to you on another way:
  python3 falaj-verify.pyz export FOLDER --trust TRUST.json
"""


def files_of(log: Log) -> dict[str, bytes]:
    """Relative path -> bytes, of everything that the newest checkpoint covers."""
    signed = log.cover()
    if signed is None:
        raise NotFound("audit.log-empty", "the log has no event yet", fix="run something first")
    bodies = [leaf.body for leaf in log.log.leaves(0, signed.size)]
    found = {
        "README.txt": README.encode(),
        CHECKPOINT: log.cosigned(signed),
        EVENTS: b"".join(body + b"\n" for body in bodies),
        "keys.txt": "".join(note.write_key(key) + "\n" for key in log.trusted()).encode(),
    }
    levels = [[merkle.leaf(body) for body in bodies]]
    while len(levels[-1]) >= tlog.WIDTH:
        below = levels[-1]
        full = len(below) // tlog.WIDTH
        levels.append(
            [merkle.root(below[at * tlog.WIDTH : (at + 1) * tlog.WIDTH]) for at in range(full)]
        )
    for tile in tlog.tiles(signed.size):
        start = tile.number * tlog.WIDTH
        hashes = levels[tile.level][start : start + tile.width]
        found[tlog.tile_path(*tile)] = b"".join(hashes)
        entries = bodies[start : start + tile.width] if tile.level == 0 else []
        if entries and all(len(body) < LONGEST for body in entries):
            found[tlog.tile_path("entries", tile.number, tile.width)] = b"".join(
                len(body).to_bytes(2, "big") + body for body in entries
            )
    return found
