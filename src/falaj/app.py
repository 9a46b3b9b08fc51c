"""The wiring: configuration -> adapters -> journeys. The one place that names concrete adapters."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from falaj.access.service import Access
from falaj.base import time
from falaj.base.errors import FalajError
from falaj.base.files import write_atomic
from falaj.facts.access import Resource, ResourceKind
from falaj.facts.changes import Change
from falaj.facts.releases import Release
from falaj.links.files.blobs import FileBlobs
from falaj.links.files.project import read_project
from falaj.links.frames.codecs import codecs
from falaj.links.git.code import read_code
from falaj.links.keyring.keys import KeyRing
from falaj.links.local.probe import LocalProber
from falaj.links.local.target import LocalTarget
from falaj.links.python.environment import read_environment
from falaj.links.sql.store import SqlStore
from falaj.links.stepcache.cache import SqliteStepCache
from falaj.ports.ground import Ground

__all__ = ["STATE", "Works", "find_root"]

STATE: Final = ".falaj"
FILE: Final = "falaj.toml"


def find_root(start: Path) -> Path:
    """The folder with falaj.toml, here or above. Raises FalajError when there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder
    raise FalajError(
        "config.no-project",
        f"there is no {FILE} in {start} or above",
        why="every command but `init`, `verify` and `explain` works inside a project",
        fix="go to your project, or make one: falaj init my-model",
    )


def silent(_line: str) -> None:
    """Nobody listens."""


def secret(path: Path) -> bytes:
    """32 random bytes that stay, readable by this user only."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()


class Works:
    """One project, wired: what the doors call journeys with."""

    def __init__(self, ground: Ground, access: Access, store: SqlStore) -> None:
        self.ground, self.access, self._store = ground, access, store

    @classmethod
    def open(cls, root: Path, *, tell: Callable[[str], None] = silent) -> Works:
        """Open the project in `root`; make its workspace on first use. tell: hears of progress."""
        project = read_project(root / FILE)
        state = root / STATE
        state.mkdir(mode=0o700, exist_ok=True)
        store = SqlStore.open(state / "store.db")
        keys = KeyRing(state / "keys")
        blobs = FileBlobs(state / "blobs")
        ground = Ground(
            root=root,
            state=state,
            project=project,
            store=store,
            blobs=blobs,
            cache=SqliteStepCache(state / "cache.db"),
            keys=keys,
            targets={"local": LocalTarget(state / "targets")},
            codecs=codecs(),
            prober=LocalProber(),
            code=lambda: read_code(root, blobs),
            environment=lambda: read_environment(root),
            mask_key=secret(state / "mask.key"),
            throwaway_keys=KeyRing,
            now=time.now,
            tell=tell,
        )
        access = Access(store, keys, project.project.name, time.now)
        access.ensure_local()
        return cls(ground, access, store)

    def close(self) -> None:
        self._store.close()

    def resource(self, kind: ResourceKind, id: str) -> Resource:
        """The resource with what the policy wants to know about it. Raises NotFound."""
        if kind is ResourceKind.CHANGE:
            return Resource(
                kind=kind, id=id, authors=self.ground.store.get(Change, id).fact.authors
            )
        if kind is ResourceKind.RELEASE:
            return Resource(
                kind=kind, id=id, authors=self.ground.store.get(Release, id).fact.authors
            )
        if kind is ResourceKind.ENVIRONMENT and id not in self.ground.project.environments:
            known = ", ".join(self.ground.project.environments) or "none"
            raise FalajError(
                "config.no-environment",
                f"there is no environment {id!r} in {FILE}",
                why=f"known: {known}",
                fix=f"add [environments.{id}] to {FILE}",
            )
        return Resource(kind=kind, id=id)
