"""falaj approve."""

from __future__ import annotations

from falaj.doors.cli.verbs.change import judging

__all__ = ["command"]

command = judging("approve", "Sign an approval over a release and its evidence.")
