"""Who asks, and may they? Decided once a token, remembered, never asked of anybody else.

A decision holds until the token ends, for a minute, or until the next plan, whichever comes first; a
refusal for five seconds. The newest one lies on its connection: there it costs one comparison.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from datetime import timedelta
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import parse_qs

from falaj.base import time as clock
from falaj.base import tokens
from falaj.base.tls import Peer
from falaj.doors.predict.http import Request
from falaj.facts.serving import AccessPlan, TokenIssuer
from falaj.serving.refusals import Finding, Refusal
from falaj.serving.rights import ANY, KNOWN, Bucket, Rights, rights_of

__all__ = ["Grant", "Guard", "asked_of"]

MOST: Final = 4096  # decisions and buckets that are kept
HOLDS_S: Final = 60.0
REFUSAL_HOLDS_S: Final = 5.0
BEARER: Final = b"bearer "
NOBODY: Final = AccessPlan()


def asked_of(parts: tuple[str, ...], query: str, models: list[str]) -> tuple[str, str]:
    """Action and model that an address is about. Who is unknown learns no names of models from it."""
    first, second = parts[0], parts[1] if len(parts) > 1 else ""
    if parts in (("v2",), ("v2", ""), ("v1", "models")):
        return KNOWN, ""
    if first == "try" and len(parts) == 2:
        return "infer", second
    if second == "models" and first in ("v1", "v2") and len(parts) > 2:
        return "infer", parts[2].removesuffix(":predict") if first == "v1" else parts[2]
    if first == "ground-truth" and len(parts) == 2:
        return "ground-truth", second
    if parts in (("predict",), ("invocations",)):
        named = parse_qs(query).get("model", models if len(models) == 1 else [])
        return "infer", named[0] if named else ANY
    return "infer", ANY  # the server's own pages are about all models


class Grant:
    """One decision. refusal: why this is nobody; rights and bucket: of somebody."""

    __slots__ = ("bucket", "guard", "principal", "refusal", "rights", "until")

    def __init__(
        self,
        guard: Guard,
        until: float,
        principal: str = "",
        rights: Rights | None = None,
        bucket: Bucket | None = None,
        refusal: str = "",
    ) -> None:
        self.guard = guard
        self.until = until
        self.principal = principal
        self.rights = rights
        self.bucket = bucket
        self.refusal = refusal


class Guard:
    """The access table of one plan. `plan` None: nobody is known here, so nobody gets in.

    now: seconds of a clock that only goes on. results: counts by result, for metrics.
    """

    def __init__(
        self,
        plan: AccessPlan | None,
        *,
        results: dict[str, int] | None = None,
        buckets: dict[str, Bucket] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan or NOBODY
        self.results = {} if results is None else results
        self.results.setdefault("allowed", 0)
        self.buckets = {} if buckets is None else buckets
        self.now = now
        self.known: dict[tuple[bytes, str], Grant] = {}
        self.rights: dict[str, Rights] = {}
        expires = self.plan.expires
        left = math.inf if expires is None else (expires - clock.now()).total_seconds()
        self.ends = self.now() + left

    def admit(self, request: Request, connection: Any, action: str, model: str) -> Grant:
        """Let a request of this connection in. Raises Refusal: 401, 403, 429."""
        text = request.headers.get(b"authorization", b"")
        now = self.now()
        grant: Grant | None = connection.grant
        if (
            grant is None
            or grant.guard is not self
            or now >= grant.until
            or not compare_digest(text, connection.credential)
        ):
            grant = self.known_as(text, connection.peer, now)
            connection.grant, connection.credential = grant, text
        rights = grant.rights
        if rights is None or model not in rights.allowed[action] or grant.bucket is not None:
            return self.judged(grant, action, model, now)
        self.results["allowed"] += 1
        return grant

    def judged(self, grant: Grant, action: str, model: str, now: float) -> Grant:
        """Hold a decision against an action. Raises Refusal."""
        rights = grant.rights
        if rights is None:
            self._count("unknown")
            raise Refusal(Finding("serving.identity", grant.refusal), status=401)
        if not rights.may(action, model):
            self._count("refused")
            what = f"{action} on {model[:60]}" if action else "ask here"
            words = f"{grant.principal[:80]} may not {what}"
            raise Refusal(Finding("serving.not-allowed", words), status=403)
        bucket = grant.bucket
        if bucket is not None and not bucket.take(now):
            self._count("limited")
            words = f"more than {bucket.rate} requests a second"
            finding = Finding("serving.rate", words)
            raise Refusal(finding, status=429)
        self.results["allowed"] += 1
        return grant

    def known_as(self, text: bytes, peer: Peer | None, now: float) -> Grant:
        """Return the decision about a credential, from memory or anew."""
        key = (hashlib.sha256(text).digest(), peer.thumbprint if peer else "")
        grant = self.known.get(key)
        if grant is None or now >= grant.until:
            grant = self._decide(text, peer, now)
            self.known.pop(key, None)
            if len(self.known) >= MOST:
                self.known.pop(next(iter(self.known)), None)
            self.known[key] = grant
        return grant

    def _decide(self, text: bytes, peer: Peer | None, now: float) -> Grant:
        if now >= self.ends:
            return Grant(self, now + REFUSAL_HOLDS_S, refusal="this server's access table ran out")
        until = min(now + HOLDS_S, self.ends)
        if text:
            if text[:7].lower() != BEARER:
                return self._nobody(now, "authorization: expected a bearer token")
            try:
                principal, left = self._claimed(text[7:].strip(), peer)
            except tokens.BadToken as error:
                return self._nobody(now, f"token: {error}")
            until = min(until, now + left)
        elif peer is not None and peer.name:
            principal = peer.name
        else:
            return self._nobody(now, "this needs a bearer token or a client certificate")
        rights = self.rights.get(principal)
        if rights is None:
            if len(self.rights) >= MOST:
                self.rights.clear()
            rights = self.rights[principal] = rights_of(self.plan, principal)
        return Grant(self, until, principal, rights, self._bucket(principal, rights, now))

    def _claimed(self, text: bytes, peer: Peer | None) -> tuple[str, float]:
        """Subject and seconds left of a token. Raises BadToken."""
        try:
            token = text.decode("ascii")
        except UnicodeDecodeError:
            raise tokens.BadToken("not a compact token of three parts") from None
        claims = tokens.part(token, 1)
        issuer = self._issuer(claims)
        at = clock.now()
        found = tokens.verify(
            token,
            issuer=issuer.issuer,
            audience=issuer.audience,
            keys={kid: pem.encode() for kid, pem in issuer.keys.items()},
            now=at,
            max_lifetime=timedelta(seconds=issuer.max_lifetime_s),
            thumbprint=peer.thumbprint if peer else "",
        )
        if found.subject.startswith(("role:", "spiffe:")) and not issuer.prefix:
            raise tokens.BadToken("claim sub: looks like a role or a certificate's name")
        return issuer.prefix + found.subject, found.expires_s - at.timestamp()

    def _issuer(self, claims: dict[str, Any]) -> TokenIssuer:
        """By exact text; the claims are not yet believed."""
        aud = claims.get("aud")
        ours = aud if isinstance(aud, list) else [aud]
        for issuer in self.plan.issuers:
            if claims.get("iss") == issuer.issuer and issuer.audience in ours:
                return issuer
        raise tokens.BadToken("claims iss, aud: no issuer of ours")

    def _bucket(self, principal: str, rights: Rights, now: float) -> Bucket | None:
        """One a principal, however many tokens it has; kept over plans while the rate is the same."""
        if not rights.rate:
            return None
        bucket = self.buckets.pop(principal, None)
        if bucket is None or bucket.rate != rights.rate:
            bucket = Bucket(rights.rate, now)
        if len(self.buckets) >= MOST:
            self.buckets.pop(next(iter(self.buckets)), None)
        self.buckets[principal] = bucket
        return bucket

    def _nobody(self, now: float, words: str) -> Grant:
        return Grant(self, now + REFUSAL_HOLDS_S, refusal=words)

    def _count(self, result: str) -> None:
        self.results[result] = self.results.get(result, 0) + 1
