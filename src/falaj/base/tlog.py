"""Forms of a transparency log: checkpoint, proof of one entry, proof of growth, names of tiles.

Sources: https://c2sp.org/tlog-checkpoint, tlog-proof, tlog-witness, tlog-tiles (2026). A checkpoint
here has three lines; extension lines, which say nothing about the tree, are refused.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, NamedTuple

from falaj.base import merkle
from falaj.base.note import BadNote, hash_line, number, read_hash, read_note

__all__ = [
    "WIDTH",
    "Checkpoint",
    "Elsewhere",
    "Forked",
    "Growth",
    "Proof",
    "Tile",
    "judge",
    "read_checkpoint",
    "read_growth",
    "read_proof",
    "text_of",
    "tile_path",
    "tiles",
    "write_growth",
    "write_proof",
]

WIDTH: Final = 256  # hashes of a tile
MOST_LINES: Final = 63
PROOF: Final = "c2sp.org/tlog-proof@v1"


class Checkpoint(NamedTuple):
    """What a log says of itself: its name, how many leaves, the root over them."""

    origin: str
    size: int
    root: bytes


def text_of(checkpoint: Checkpoint) -> str:
    """The text that is signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{hash_line(checkpoint.root)}\n"


def read_checkpoint(text: str) -> Checkpoint:
    """Read the text of a note. Raises BadNote."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1]:
        raise BadNote("a checkpoint has three lines: origin, size, root")
    if len(lines) > 4:
        raise BadNote("the checkpoint has extension lines, which are not read here")
    origin, size, root, _ = lines
    if not origin or "+" in origin or any(sign.isspace() for sign in origin):
        raise BadNote(f"{origin[:60]!r} is no name of a log")
    return Checkpoint(origin, number(size), read_hash(root))


class Proof(NamedTuple):
    """That one entry stands in the tree of a checkpoint. extra: the entry itself, where it is given."""

    place: int
    hashes: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None


def write_proof(proof: Proof) -> bytes:
    lines = [PROOF]
    if proof.extra is not None:
        lines.append("extra " + base64.b64encode(proof.extra).decode())
    lines += [f"index {proof.place}", *map(hash_line, proof.hashes), "", ""]
    return "\n".join(lines).encode() + proof.note


def read_proof(data: bytes) -> Proof:
    """Take a `.tlog-proof` apart; nothing is verified. Raises BadNote."""
    lines, note = _head(data)
    if not lines or lines.pop(0) != PROOF:
        raise BadNote(f"it does not begin with {PROOF}")
    extra = None
    if lines and lines[0].startswith("extra "):
        code = lines.pop(0).removeprefix("extra ")
        try:
            extra = base64.b64decode(code, validate=True)
        except ValueError:
            raise BadNote("the extra data is no base64") from None
        if base64.b64encode(extra).decode() != code:
            raise BadNote("the extra data is not in its one spelling")
    if not lines or not lines[0].startswith("index "):
        raise BadNote("it names no index")
    index = number(lines.pop(0).removeprefix("index "))
    return Proof(index, _hashes(lines), note, extra)


class Growth(NamedTuple):
    """That the tree of a checkpoint begins with the one of `old` leaves."""

    old: int
    hashes: tuple[bytes, ...]
    note: bytes


def write_growth(growth: Growth) -> bytes:
    """As a witness is asked: `old N`, the proof, a blank line, the checkpoint."""
    lines = [f"old {growth.old}", *map(hash_line, growth.hashes), "", ""]
    return "\n".join(lines).encode() + growth.note


def read_growth(data: bytes) -> Growth:
    """Raises BadNote."""
    lines, note = _head(data)
    if not lines or not lines[0].startswith("old "):
        raise BadNote("it does not begin with the old size")
    return Growth(number(lines.pop(0).removeprefix("old ")), _hashes(lines), note)


def _head(data: bytes) -> tuple[list[str], bytes]:
    """The lines before the first blank one, and the note behind it, which is well-formed."""
    head, blank, note = data.partition(b"\n\n")
    if not blank:
        raise BadNote("the blank line before the checkpoint is missing")
    read_note(note)
    try:
        return head.decode("ascii").split("\n"), note
    except UnicodeDecodeError:
        raise BadNote("the proof is not plain text") from None


def _hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    if len(lines) > MOST_LINES:
        raise BadNote(f"more than {MOST_LINES} hashes")
    return tuple(map(read_hash, lines))


class Elsewhere(ValueError):
    """The proof begins with another size than the one that is held. size: what is held."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"the checkpoint of {size} events is held")


class Forked(ValueError):
    """The new checkpoint does not continue the one that is held."""


def judge(held: Checkpoint | None, growth: Growth, new: Checkpoint) -> None:
    """What every witness decides, before it holds `new`. Raises Elsewhere or Forked.

    1. It is the same log. 2. The proof begins where the last checkpoint ended. 3. At the same size
    the root is the same. 4. The proof holds.
    """
    size = held.size if held else 0
    if held is not None and held.origin != new.origin:
        raise Forked(f"got a checkpoint of {new.origin}, held is one of {held.origin}")
    if growth.old != size:
        raise Elsewhere(size)
    if size > new.size:
        raise Forked(f"got {new.size} events, {size} are held")
    root = held.root if held else merkle.EMPTY
    if size == new.size and root != new.root:
        raise Forked(f"two roots over the same {size} events")
    if not merkle.verify_consistency(size, new.size, root, new.root, growth.hashes):
        raise Forked(f"no proof that {new.size} events continue the {size} that are held")


# --- tiles ---


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """`tile/0/x001/x234/067`, with `.p/N` behind it while it holds fewer than 256."""
    digits = [f"{index % 1000:03}"]
    while index := index // 1000:
        digits.insert(0, f"x{index % 1000:03}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(digits)}{partial}"


class Tile(NamedTuple):
    level: int  # of tiles: each is eight levels of the tree
    number: int
    width: int


def tiles(size: int) -> tuple[Tile, ...]:
    """Every tile of a tree of that size, level by level."""
    found: list[Tile] = []
    level, count = 0, size
    while count:
        found += [Tile(level, index, WIDTH) for index in range(count // WIDTH)]
        if count % WIDTH:
            found.append(Tile(level, count // WIDTH, count % WIDTH))
        level, count = level + 1, count // WIDTH
    return tuple(found)
