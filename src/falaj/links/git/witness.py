"""ports/witness.py: a branch of a git repository, one commit a checkpoint, pushed where one says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from falaj.base import note, tlog
from falaj.base.tlog import Checkpoint, Growth
from falaj.ports.witness import Away, Behind, Held, Refused

__all__ = ["GitWitness"]

BRANCH: Final = "falaj-checkpoints"
SECONDS: Final = 60.0
NOBODY: Final = "0" * 40
AUTHOR: Final = {
    "GIT_AUTHOR_NAME": "Falaj",
    "GIT_AUTHOR_EMAIL": "falaj@localhost",
    "GIT_COMMITTER_NAME": "Falaj",
    "GIT_COMMITTER_EMAIL": "falaj@localhost",
    "GIT_TERMINAL_PROMPT": "0",
}


class Unwilling(Exception):
    """git ended with another code than 0; what it said."""


class GitWitness:
    """Works on the repository's objects alone: no work tree is touched, no hook is run.

    remote: pushed to without force, so that a remote which moved on refuses. Then what counts is the
    remote: a checkpoint that did not arrive there is not held.
    """

    def __init__(self, name: str, repository: Path, *, branch: str = "", remote: str = "") -> None:
        self.name, self._at, self._remote = name, repository, remote
        self._branch = branch or BRANCH

    @property
    def where(self) -> str:
        return f"{self._at} ({self._branch}{f', pushed to {self._remote}' if self._remote else ''})"

    @property
    def _ref(self) -> str:
        return f"refs/heads/{self._branch}"

    def latest(self, origin: str) -> Checkpoint | None:
        self.probe()
        head = self._head()
        return None if head == NOBODY else self._told(head, origin)

    def add(self, growth: Growth, checkpoint: Checkpoint) -> Held:
        self.probe()
        if self._remote:
            self._catch_up()
        head = self._head()
        held = None if head == NOBODY else self._told(head, checkpoint.origin)
        if not (held == checkpoint and growth.old <= checkpoint.size):
            try:
                tlog.judge(held, growth, checkpoint)
            except tlog.Elsewhere as error:
                raise Behind(error.size) from None
            except tlog.Forked as error:
                raise self._refused(str(error)) from None
            head = self._commit(head, checkpoint, growth.note)
        if self._remote:
            self._push()
        return Held(f"commit {head}", int(time.time()))

    def probe(self) -> tuple[str, ...]:
        try:
            self._git("rev-parse", "--git-dir")
        except Unwilling as error:
            raise self._away(str(error)) from None
        return ("the repository is there",)

    def _head(self) -> str:
        try:
            return self._git("rev-parse", "--verify", "--quiet", self._ref).strip()
        except Unwilling:
            return NOBODY

    def _file(self, origin: str) -> str:
        return f"{origin.replace('/', '_')}.checkpoint"

    def _told(self, head: str, origin: str) -> Checkpoint | None:
        name = self._file(origin)
        try:
            if not self._git("ls-tree", head, "--", name):
                return None
            data = self._git("cat-file", "blob", f"{head}:{name}")
            return tlog.read_checkpoint(note.read_note(data.encode()).text)
        except Unwilling as error:
            raise self._away(str(error)) from None
        except note.BadNote as error:
            raise Refused(
                "audit.witness-damaged",
                f"witness {self.name!r}: {name} on {self._branch} is no checkpoint: {error}",
                why="that branch is written by this log alone",
                fix="look at its history",
            ) from None

    def _commit(self, head: str, checkpoint: Checkpoint, data: bytes) -> str:
        name = self._file(checkpoint.origin)
        try:
            blob = self._git("hash-object", "-w", "--stdin", given=data.decode()).strip()
            others = [] if head == NOBODY else self._git("ls-tree", head).splitlines()
            lines = [line for line in others if line.partition("\t")[2] != name]
            tree = self._git(
                "mktree", given="\n".join([*lines, f"100644 blob {blob}\t{name}"]) + "\n"
            ).strip()
            parents = () if head == NOBODY else ("-p", head)
            words = f"{checkpoint.origin}: {checkpoint.size} events\n"
            made = self._git("commit-tree", tree, *parents, given=words).strip()
            # The old value makes it a compare-and-swap: two workers never lose each other's.
            self._git("update-ref", self._ref, made, head)
        except Unwilling as error:
            raise self._away(str(error)) from None
        return made

    def _catch_up(self) -> None:
        """What the remote holds counts; a branch that is only ahead of it is pushed again."""
        try:
            theirs = self._git("ls-remote", self._remote, self._ref).split("\t")[0].strip()
            if not theirs or theirs == self._head():
                return
            self._git("fetch", "--no-tags", "--quiet", self._remote, self._ref)
            head = self._head()
            if head == NOBODY:
                self._git("update-ref", self._ref, theirs, NOBODY)
                return
            try:
                self._git("merge-base", "--is-ancestor", theirs, head)
            except Unwilling:
                self._git("merge-base", "--is-ancestor", head, theirs)
                self._git("update-ref", self._ref, theirs, head)
        except Unwilling as error:
            raise self._away(str(error)) from None

    def _push(self) -> None:
        try:
            self._git("push", "--porcelain", self._remote, f"{self._ref}:{self._ref}")
        except Unwilling as error:
            if "rejected" in str(error):
                raise self._refused(
                    f"{self._remote} holds commits on {self._branch} that are not here"
                ) from None
            raise self._away(str(error)) from None

    def _git(self, *words: str, given: str | None = None) -> str:
        program = shutil.which("git")
        if program is None:
            raise Unwilling("there is no git on this machine")
        try:
            done = subprocess.run(
                [program, "-C", str(self._at), "-c", "core.hooksPath=/dev/null", *words],
                input=given,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env={**os.environ, **AUTHOR},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unwilling(type(error).__name__) from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise Unwilling(said[-400:] or f"git {words[0]} ended with {done.returncode}")
        return done.stdout

    def _refused(self, said: str) -> Refused:
        return Refused(
            "audit.witness-refuses",
            f"witness {self.name!r} refuses: {said}",
            why="what it holds was signed by this log, and the log is no continuation of it",
            fix="`falaj audit verify` names what differs; look at the history of that branch",
        )

    def _away(self, said: str) -> Away:
        return Away(
            "audit.witness-away",
            f"witness {self.name!r}: {self._at}: {said}",
            why="git did not do what it was asked",
            fix="mend that; checkpoints that it missed are shown to it then",
        )
