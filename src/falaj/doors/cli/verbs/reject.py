"""falaj reject."""

from __future__ import annotations

from falaj.doors.cli.verbs.change import judging

__all__ = ["command"]

command = judging("reject", "Sign a rejection, with the reason.")
