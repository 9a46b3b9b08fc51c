"""`python -m falaj` is the command line."""

from __future__ import annotations

from falaj.doors.cli.main import main

main()
