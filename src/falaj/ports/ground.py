"""What every journey stands on: one project, its folder, and the adapters behind the ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from falaj.base import ids
from falaj.facts.events import Event
from falaj.facts.project import Project
from falaj.ports.blobs import Blobs
from falaj.ports.cache import StepCache
from falaj.ports.signer import Keys
from falaj.ports.store import Store
from falaj.ports.target import Target

__all__ = ["Ground"]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """root: the project's folder. state: `.falaj` below it. now: the clock, given by the wiring."""

    root: Path
    state: Path
    project: Project
    store: Store
    blobs: Blobs
    cache: StepCache
    keys: Keys
    targets: Mapping[str, Target]
    now: Callable[[], datetime]

    @property
    def name(self) -> str:
        return self.project.project.name

    def event(self, type: str, actor: str, subject: str, data: dict[str, Any]) -> Event:
        """An event of now. `actor`: a person's pseudonym or `worker:<id>`."""
        return Event(
            id=ids.new(),
            at=self.now(),
            project=self.name,
            type=type,
            actor=actor,
            subject=subject,
            data=data,
        )
