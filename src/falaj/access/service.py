"""Identities and permits: who is asking, and whether they may."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from falaj.access import engine
from falaj.base import ids, tokens
from falaj.base.errors import Conflict, FalajError, NotAllowed, NotFound
from falaj.facts.access import Action, Permit, Principal, Resource, Role
from falaj.facts.changes import Approval
from falaj.facts.checks import GateReport
from falaj.facts.events import Event
from falaj.facts.releases import RevocationKind
from falaj.ports.signer import Keys
from falaj.ports.store import Store

__all__ = ["OWNER", "Access", "NotSignedIn"]

OWNER: Final = "owner"
WORKER: Final = "worker"
EVERYTHING: Final = 1_000_000
AUDIENCE: Final = "falaj-api"
ISSUER_KEY: Final = "token-issuer"
MAX_LIFETIME: Final = timedelta(hours=12)
# Keys of the workspace itself: an account of that name would sign with them, in their roles.
RESERVED: Final = frozenset(
    {
        ISSUER_KEY,
        "builder",
        "gate-runner",
        "log-signer",
        "plan-signer",
        "policy-signer",
        "release-signer",
        "root",
    }
)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NotSignedIn(FalajError):
    """No identity, or a token that does not hold."""

    exit = NotAllowed.exit
    status = 401


class Access:
    """Asked by the doors; rooms receive the answer as a Permit."""

    def __init__(self, store: Store, keys: Keys, project: str, now: Callable[[], datetime]) -> None:
        self._store, self._keys, self._project, self._now = store, keys, project, now

    def ensure_local(self) -> None:
        """Make the local owner and the worker, once a workspace."""
        for name, role in ((OWNER, Role.OWNER), (WORKER, Role.WORKER)):
            if self._known(name):
                continue
            try:
                self.add(name, (role,), actor="bootstrap")
            except Conflict:  # another process came first
                if not self._known(name):
                    raise

    def add(
        self,
        name: str,
        roles: tuple[Role, ...],
        *,
        actor: str,
        person: str = "",
        groups: tuple[str, ...] = (),
    ) -> Principal:
        """Make an identity with its own key. `person`: another account of a known person.

        groups: teams that it belongs to, as environments ask for approvals of them.
        """
        for group in groups:
            if not NAME.fullmatch(group):
                raise FalajError(
                    "access.bad-name",
                    f"group: got {group!r}, expected letters, digits, '-', '.', '_', at most 64",
                    fix="choose another name",
                )
        if not NAME.fullmatch(name) or name in RESERVED:
            raise FalajError(
                "access.bad-name",
                f"got {name!r}, expected letters, digits, '-', '.', '_', at most 64",
                why="names of the workspace's own keys are not for people"
                if name in RESERVED
                else "a name stands in files, events and signatures",
                fix="choose another name",
            )
        if self._known(name):  # before its key gets a role more
            raise Conflict(
                "store.exists",
                f"principal {name!r} exists already",
                fix="`falaj access list` shows who there is",
            )
        hint = self._keys.create(
            name, () if {Role.WORKER, Role.LOG} & set(roles) else ("approval",)
        )
        principal = Principal(
            name=name,
            person=person or ids.new(),
            roles=roles,
            key=hint,
            created=self._now(),
            groups=tuple(sorted(set(groups))),
        )
        with self._store.begin() as unit:
            unit.add(principal)
            unit.append(self._event("principal.added", actor, principal))
        return principal

    def forget(self, name: str, *, actor: str) -> int:
        """Erase who stood behind the accounts of a person, and that person's remarks.

        The log keeps the pseudonym, and verifies as before. Refused while an approval or a waiver of
        that person is evidence. Returns how many remarks there were.
        """
        person = self.principal(name).person
        kept = {approval.person for approval in self._store.find(Approval, limit=EVERYTHING)}
        kept |= {
            waiver.owner
            for report in self._store.find(GateReport, limit=EVERYTHING)
            for waiver in report.waivers
        }
        names = {known.name for known in self._store.find(Principal, person=person)}
        if person in kept or names & {OWNER, WORKER}:
            raise Conflict(
                "access.still-needed",
                f"{name} cannot be forgotten now",
                why="the workspace itself is this account"
                if names & {OWNER, WORKER}
                else "approvals or waivers of this person are evidence, and evidence has its time",
                fix="erase after the retention of that evidence has ended",
            )
        for known in sorted(names):
            if known in self._keys.names():
                self._keys.revoke(known, RevocationKind.RETIRED, reason="forgotten")
        with self._store.begin() as unit:
            _, remarks = unit.forget(person)
            unit.append(
                Event(
                    id=ids.new(),
                    at=self._now(),
                    project=self._project,
                    type="person.forgotten",
                    actor=actor,
                    subject=f"principal/{person}",
                    data={"remarks": remarks},
                )
            )
        return remarks

    def _known(self, name: str) -> bool:
        try:
            self._store.get(Principal, name)
        except NotFound:
            return False
        return True

    def principal(self, name: str) -> Principal:
        try:
            return self._store.get(Principal, name).fact
        except NotFound:
            raise NotSignedIn(
                "access.unknown-identity",
                f"there is no identity {name!r} here",
                fix=f"make it: `falaj access add {name} --role approver`",
            ) from None

    def token(self, name: str, lifetime: timedelta) -> str:
        """A bearer token for `name`. Raises FalajError when `lifetime` is out of range."""
        if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
            raise FalajError(
                "access.token-lifetime",
                f"a token lives from 1 s to {MAX_LIFETIME}, got {lifetime}",
                why="a token that leaks must die soon",
            )
        principal = self.principal(name)
        self._keys.create(ISSUER_KEY, ("token",))
        with self._store.begin() as unit:
            unit.append(self._event("token.issued", principal.person, principal))
        return tokens.issue(
            self._keys.signer(ISSUER_KEY),
            issuer=f"falaj:{self._project}",
            audience=AUDIENCE,
            subject=name,
            now=self._now(),
            lifetime=lifetime,
        )

    def bearer(self, token: str) -> Principal:
        """The identity behind a token. Raises NotSignedIn with the rule that failed."""
        from falaj.facts.trust import keys_for

        now = self._now()
        try:
            claims = tokens.verify(
                token,
                issuer=f"falaj:{self._project}",
                audience=AUDIENCE,
                keys=keys_for(self._keys.trust(), "token", now),
                now=now,
                max_lifetime=MAX_LIFETIME,
            )
        except tokens.BadToken as error:
            raise NotSignedIn(
                "access.bad-token",
                f"the token is refused: {error}",
                fix="make one: `falaj access token`",
            ) from None
        return self.principal(claims.subject)

    def permit(self, principal: Principal, action: Action, resource: Resource) -> Permit:
        """Decide. A refusal leaves an event too, then raises NotAllowed."""
        try:
            return engine.decide(
                principal, action, resource, now=self._now(), rules=engine.bundle()
            )
        except NotAllowed as refusal:
            with self._store.begin() as unit:
                unit.append(
                    Event(
                        id=ids.new(),
                        at=self._now(),
                        project=self._project,
                        type="access.denied",
                        actor=principal.person,
                        subject=f"{resource.kind}/{resource.id}",
                        data={
                            "action": str(action),
                            "code": refusal.code,
                            "policy": engine.bundle().digest,
                        },
                    )
                )
            raise

    def _event(self, type: str, actor: str, principal: Principal) -> Event:
        return Event(
            id=ids.new(),
            at=self._now(),
            project=self._project,
            type=type,
            actor=actor,
            subject=f"principal/{principal.person}",
            data={"roles": [str(role) for role in principal.roles], "key": principal.key}
            | ({"groups": list(principal.groups)} if principal.groups else {}),
        )
