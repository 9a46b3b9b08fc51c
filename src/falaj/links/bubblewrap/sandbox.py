"""The port Sandbox over bubblewrap: one job, one folder, an end. Not on this machine = refused, with the cure."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from falaj.base.errors import FalajError
from falaj.base.sandbox import Limits, absent, ended, name_of, started

__all__ = ["Bubblewrap"]

CURE: Final = (
    "apt-get install bubblewrap, and allow user namespaces; or convert it where it was trained"
)
EVERY_S: Final = 0.5


class Bubblewrap:
    """The port Sandbox. python: of an environment with Falaj and the models' packages."""

    def __init__(self, *, limits: Limits | None = None, python: Path | None = None) -> None:
        self.limits = limits or Limits()
        self.python = python or Path(sys.executable)

    def about(self) -> str:
        limits = self.limits
        return f"bubblewrap, {limits.memory_mb} MB, {limits.seconds:g} s, one process, no network"

    def job(self, name: str, folder: Path, tell: Callable[[float], None]) -> str:
        return self.run(["-P", "-m", "falaj.links.bubblewrap.child", name], folder, tell=tell)

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        tell: Callable[[float], None] = lambda _: None,
    ) -> str:
        """Run `python ARGUMENTS` with `folder` as the one place to write into.

        tell: hears the seconds that have gone by. Returns nothing when it ended well, else why not.
        Raises FalajError where there is no sandbox.
        """
        why = absent()
        if why:
            raise FalajError(
                "convert.no-sandbox",
                "there is no sandbox on this machine",
                why=f"{why}; a pickle runs code as soon as it is read",
                fix=CURE,
            )
        with tempfile.TemporaryFile() as said:
            child = started(
                self.python, arguments, folder, self.limits, writable=True, stdout=said, stderr=said
            )
            code = self.waited(child, tell)
            said.seek(0)
            told = said.read(1 << 16).decode(errors="replace").strip().splitlines()
        if code == 0:
            return ""
        if code is None:
            return f"it took more than {self.limits.seconds:.0f} s, and was ended"
        last = "".join(c if c.isprintable() else " " for c in (told or ["it said nothing"])[-1])
        return f"it ended with {name_of(code)}: {last[:300]}"

    def waited(self, child: subprocess.Popen[bytes], tell: Callable[[float], None]) -> int | None:
        gone = 0.0
        try:
            while True:
                try:
                    return child.wait(timeout=EVERY_S)
                except subprocess.TimeoutExpired:
                    gone += EVERY_S
                    tell(gone)
                    if gone >= self.limits.seconds:
                        return None
        finally:
            ended(child)
