"""ports/witness.py: a folder that files are only added to, such as a mounted archive."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from falaj.base import note, tlog
from falaj.base.files import sync_folder
from falaj.base.tlog import Checkpoint, Growth
from falaj.ports.witness import Away, Behind, Held, Refused

__all__ = ["FileWitness"]

END: Final = ".checkpoint"


class FileWitness:
    """One file a checkpoint, named by its size, written once and never opened for writing again.

    What the folder itself forbids is its owner's: another user's folder, a write-once mount.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder

    @property
    def where(self) -> str:
        return str(self._folder)

    def latest(self, origin: str) -> Checkpoint | None:
        try:
            names = sorted(p.name for p in self._of(origin).glob(f"*{END}"))
            data = (self._of(origin) / names[-1]).read_bytes() if names else None
        except OSError as error:
            raise self._away(error) from None
        if data is None:
            return None
        try:
            return tlog.read_checkpoint(note.read_note(data).text)
        except note.BadNote as error:
            raise Refused(
                "audit.witness-damaged",
                f"witness {self.name!r}: {names[-1]} is no checkpoint: {error}",
                why="files in that folder are never changed",
                fix="look who wrote there; put it back from a copy",
            ) from None

    def add(self, growth: Growth, checkpoint: Checkpoint) -> Held:
        held = self.latest(checkpoint.origin)
        try:
            tlog.judge(held, growth, checkpoint)
        except tlog.Elsewhere as error:
            raise Behind(error.size) from None
        except tlog.Forked as error:
            raise forked(self.name, error) from None
        name = f"{checkpoint.size:020}{END}"
        if held != checkpoint:
            try:
                self._write(self._of(checkpoint.origin), name, growth.note)
            except FileExistsError:  # another worker was quicker; the next turn sees what it wrote
                raise Behind(checkpoint.size) from None
            except OSError as error:
                raise self._away(error) from None
        return Held(name, int(time.time()))

    def probe(self) -> tuple[str, ...]:
        if not self._folder.is_dir():
            raise Away(
                "audit.witness-away",
                f"witness {self.name!r}: there is no folder {self._folder}",
                why="it is not made here: a mount that is away would become an empty folder",
                fix="mount it, or make it",
            )
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise Away(
                "audit.witness-away",
                f"witness {self.name!r}: {self._folder} cannot be written to",
                fix="let this user add files there",
            )
        return ("the folder is there and takes files",)

    def _of(self, origin: str) -> Path:
        return self._folder / origin.replace("/", "_")

    def _write(self, folder: Path, name: str, data: bytes) -> None:
        """Whole or not at all, and never over what is there: a link fails where a name is taken."""
        self.probe()
        folder.mkdir(exist_ok=True)
        part = folder / f".{name}.{os.getpid()}.{os.urandom(4).hex()}.part"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o444)
            os.link(part, folder / name)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(folder)

    def _away(self, error: OSError) -> Away:
        return Away(
            "audit.witness-away",
            f"witness {self.name!r}: {self._folder}: {error.strerror}",
            fix="mend that; checkpoints that it missed are shown to it then",
        )


def forked(name: str, error: tlog.Forked) -> Refused:
    return Refused(
        "audit.witness-refuses",
        f"witness {name!r} refuses: {error}",
        why="what it holds was signed by this log, and the log is no continuation of it",
        fix="`falaj audit verify` names what differs; this is a finding, not a fault of the witness",
    )
