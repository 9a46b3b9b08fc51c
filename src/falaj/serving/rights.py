"""Who may do what on the data plane: the plan's table, read once a principal. Pure."""

from __future__ import annotations

from typing import Final

from falaj.facts.serving import AccessPlan

__all__ = ["ACTIONS", "ANY", "KNOWN", "MAX_RATE", "Bucket", "Rights", "faults", "rights_of"]

ACTIONS: Final = ("infer", "ground-truth", "override")
ANY: Final = "*"
KNOWN: Final = ""  # the action of those who have any right at all
MAX_RATE: Final = 1_000_000
ROLE: Final = "role:"
LONGEST: Final = 256


class Rights:
    """What one principal may do. rate: requests a second, 0 without a limit."""

    __slots__ = ("allowed", "names", "rate")

    def __init__(
        self, names: frozenset[str], allowed: dict[str, frozenset[str]], rate: int
    ) -> None:
        self.names = names
        self.allowed = allowed
        self.rate = rate

    def may(self, action: str, model: str) -> bool:
        models = self.allowed[action]
        return model in models or ANY in models


def rights_of(plan: AccessPlan, principal: str) -> Rights:
    """Read the table for one principal and its roles. No entry is no right."""
    names = {principal, *(ROLE + role for role in plan.roles.get(principal, ()))}
    allowed: dict[str, set[str]] = {action: set() for action in (*ACTIONS, KNOWN)}
    for who, action, model in plan.allow:
        if who in names:
            allowed[action].add(model)
            allowed[KNOWN].add(ANY)
    rates = [rate for who, rate in plan.rate.items() if who in names]
    table = {action: frozenset(models) for action, models in allowed.items()}
    return Rights(frozenset(names), table, max(rates, default=0))


def faults(plan: AccessPlan) -> list[str]:
    """What is wrong with a table, in words that name the field."""
    found: list[str] = []
    for at, (who, action, model) in enumerate(plan.allow):
        if not who or who == ROLE or len(who) > LONGEST or ANY in who:
            found.append(f"allow[{at}]: got {who[:40]!r}, expected a principal or role:NAME")
        if action not in ACTIONS:
            found.append(f"allow[{at}]: got {action[:40]!r}, expected {', '.join(ACTIONS)}")
        if not model:
            found.append(f"allow[{at}]: expected a model's name or *")
    found += [
        f"roles: got {principal[:40]!r}, expected a principal"
        for principal in plan.roles
        if principal.startswith(ROLE) or not principal
    ]
    for who, rate in plan.rate.items():
        if not 0 < rate <= MAX_RATE:
            found.append(f"rate.{who[:40]}: got {rate}, expected 1 to {MAX_RATE}")
    seen: set[tuple[str, str]] = set()
    prefixes: set[str] = set()
    for issuer in plan.issuers:
        if not issuer.issuer or not issuer.audience:
            found.append("issuers: expected an issuer and an audience")
        if (issuer.issuer, issuer.audience) in seen:
            found.append(f"issuers: {issuer.issuer[:60]!r} stands there twice")
        if issuer.prefix in prefixes:
            found.append(f"issuers: two have the prefix {issuer.prefix[:40]!r}")
        if issuer.prefix.startswith((ROLE, "spiffe:")):
            found.append("issuers: a prefix cannot look like a role or a certificate's name")
        if not 0 < issuer.max_lifetime_s <= 86_400:
            found.append(f"issuers: max_lifetime_s: got {issuer.max_lifetime_s}, expected to 86400")
        seen.add((issuer.issuer, issuer.audience))
        prefixes.add(issuer.prefix)
    return found


class Bucket:
    """A token bucket of one second's requests. Seconds of any clock that only goes on."""

    __slots__ = ("at", "left", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self.left = float(rate)
        self.at = now

    def take(self, now: float) -> bool:
        """Take one; False when none is left."""
        left = self.left + (now - self.at) * self.rate
        self.at = now
        if left > self.rate:
            left = float(self.rate)
        if left < 1.0:
            self.left = left
            return False
        self.left = left - 1.0
        return True

    def wait_s(self) -> float:
        """Seconds until the next one is there."""
        return max(0.0, (1.0 - self.left) / self.rate)
