"""The traffic plan: read strictly, accept or refuse whole, split requests. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final

import msgspec

from falaj.base import canonical, dsse
from falaj.base.digests import is_digest, of_bytes
from falaj.base.errors import Conflict, FalajError, Unverified
from falaj.facts.releases import Trust
from falaj.facts.serving import ArmPlan, FeaturePlan, LogKey, ModelPlan, TrafficPlan
from falaj.facts.trust import keys_for
from falaj.serving.rights import faults

__all__ = [
    "MAX_PLAN",
    "PLAN",
    "ROLE",
    "Split",
    "check",
    "is_canary",
    "open_plan",
    "read",
    "succeed",
]

PLAN: Final = "application/vnd.falaj.plan+json"
ROLE: Final = "plan"
MAX_PLAN: Final = 1024 * 1024
MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
WORD: Final = re.compile(r"[A-Za-z0-9._:/@+-]{0,256}")
BP: Final = (1 << 64) // 10_000


def open_plan(text: bytes, trust: Trust, *, now: datetime) -> tuple[TrafficPlan, str]:
    """Verify and read a signed plan; returns it and the digest of its payload.

    Raises Unverified (size, envelope, signature, expired trust) or FalajError (a bad field).
    """
    if len(text) > MAX_PLAN:
        raise Unverified("serving.plan-size", "plan.json is larger than 1 MiB", fix=FIX)
    if trust.expires < now:
        raise Unverified(
            "serving.trust-expired",
            f"the trust root ran out at {trust.expires.isoformat()}",
            why="a plan is obeyed only under a trust root that still holds",
            fix="bring a newer trust.json",
        )
    keys = keys_for(trust, ROLE, now)
    try:
        opened = dsse.open_envelope(canonical.loads(text), keys, kind=PLAN)
    except (canonical.NotCanonical, dsse.BadEnvelope) as error:
        raise Unverified("serving.plan-signature", f"plan.json: {error}", fix=FIX) from None
    plan = read(opened.payload)
    try:
        digest = of_bytes(canonical.dumps(opened.payload))
    except canonical.NotCanonical as error:
        raise _bad(str(error)) from None
    return plan, digest


def read(payload: object) -> TrafficPlan:
    """Read the payload of an envelope that held. Raises FalajError, in words that name the field."""
    try:
        plan = msgspec.convert(payload, TrafficPlan)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    except UnicodeEncodeError:
        raise _bad("text: half of a surrogate pair is no character") from None
    check(plan)
    return plan


FIX: Final = "apply the plan again from the control plane"


def succeed(plan: TrafficPlan, digest: str, current: TrafficPlan | None, was: str) -> bool:
    """Tell whether the plan is newer than the current one; the same plan again is not.

    Raises Conflict: a smaller `seq`, the same `seq` with other content, another environment.
    """
    if current is None:
        return True
    if plan.environment != current.environment:
        words = f"environment: got {plan.environment!r}, expected {current.environment!r}"
        raise Conflict("serving.plan-environment", words, fix=FIX)
    if plan.seq < current.seq:
        words = f"seq: got {plan.seq}, expected more than {current.seq}"
        raise Conflict("serving.plan-old", words, fix=FIX)
    if plan.seq == current.seq:
        if digest != was:
            words = f"seq {plan.seq} comes with other content than before"
            raise Conflict("serving.plan-twice", words, fix=FIX)
        return False
    return True


def check(plan: TrafficPlan) -> None:
    """Refuse what types cannot. Raises FalajError naming the field."""
    if plan.v != 1:
        raise _bad(f"v: got {plan.v}, expected 1")
    if plan.seq < 0:
        raise _bad(f"seq: got {plan.seq}, expected 0 or more")
    if not plan.models:
        raise _bad("models: got none, expected at least one")
    for name, model in plan.models.items():
        where = f"models.{name[:60]}"
        if MODEL.fullmatch(name) is None:
            raise _bad(f"{where}: a model's name is letters, digits, dot, dash, underscore")
        _check_model(where, model)
    if plan.log_key is not None:
        _check_log_key(plan.log_key)
    if plan.access is not None:
        wrong = faults(plan.access)
        if wrong:
            raise _bad(f"access.{wrong[0]}")


def _check_log_key(key: LogKey) -> None:
    """A key that cannot seal is no plan: the log would lie in the clear."""
    try:
        whole = len(base64.b64decode(key.public, validate=True)) == 32
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise _bad("log_key.public: expected base64 of 32 bytes")
    if not key.scope or WORD.fullmatch(key.scope) is None:
        raise _bad(f"log_key.scope: got {key.scope[:40]!r}")
    if key.version < 1:
        raise _bad(f"log_key.version: got {key.version}, expected 1 or more")


def _check_model(where: str, model: ModelPlan) -> None:
    for arm in ("stable", "canary", "standby", "shadow"):
        planned: ArmPlan | None = getattr(model, arm)
        if planned is not None:
            _check_arm(f"{where}.{arm}", planned)
    if model.canary is not None and not model.rollout:
        raise _bad(f"{where}.rollout: missing beside a canary: its counts would belong to nobody")
    if WORD.fullmatch(model.rollout) is None:
        raise _bad(f"{where}.rollout: got {model.rollout[:40]!r}")
    if model.shadow is not None and not model.rollout:
        raise _bad(f"{where}.rollout: missing beside a shadow: its rows would belong to nobody")
    if not 0 <= model.shadow_bp <= 10_000:
        raise _bad(f"{where}.shadow_bp: got {model.shadow_bp}, expected 0 to 10000")
    if model.rolled < 0 or (model.rolled and model.canary is None):
        raise _bad(f"{where}.rolled: got {model.rolled}, expected 0 or more, and above 0 a canary")
    if any(WORD.fullmatch(who) is None or not who for who in model.split.testers):
        raise _bad(f"{where}.split.testers: expected names of principals and role:NAME")
    if model.step < 0:
        raise _bad(f"{where}.step: got {model.step}, expected 0 or more")
    if not 16 <= len(_salt(where, model.split.salt)) <= 64:
        raise _bad(f"{where}.split.salt: expected base64 of 16 to 64 bytes")
    key = model.split.key
    if key != "request" and not (key.startswith("header:") and len(key) <= 136):
        raise _bad(f"{where}.split.key: got {key[:40]!r}, expected request or header:NAME")
    if model.split.sticky and key == "request":
        raise _bad(f"{where}.split.sticky: a request's own number cannot stick; name a header")
    if not 100 <= model.split.stratum_ms <= 3_600_000:
        raise _bad(f"{where}.split.stratum_ms: expected 100 to 3600000")
    if not 0 <= model.latency_margin_us <= 60_000_000:
        raise _bad(f"{where}.latency_margin_us: expected 0 to 60000000")
    if model.features is not None:
        _check_features(f"{where}.features", model.features)
    if model.on_full not in ("drop", "refuse"):
        raise _bad(f"{where}.on_full: got {model.on_full[:40]!r}, expected drop or refuse")
    edges = model.latency_us
    if len(edges) > 4 or any(edge <= 0 for edge in edges) or list(edges) != sorted(edges):
        raise _bad(f"{where}.latency_us: expected at most four rising microseconds, got {edges}")


def _check_features(where: str, features: FeaturePlan) -> None:
    if MODEL.fullmatch(features.table) is None:
        raise _bad(f"{where}.table: got {features.table[:40]!r}, expected the name of a file")
    if not features.key or not features.columns or features.key in features.columns:
        raise _bad(f"{where}: expected a key, and columns without it")
    if features.max_age_s < 0:
        raise _bad(f"{where}.max_age_s: got {features.max_age_s}, expected 0 or more")
    for name, text in features.defaults.items():
        if name not in features.columns:
            raise _bad(f"{where}.defaults: {name[:40]!r} is not among the columns")
        try:
            msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            raise _bad(f"{where}.defaults.{name[:40]}: expected a value as JSON") from None


def _check_arm(where: str, arm: ArmPlan) -> None:
    if not is_digest(arm.release):
        raise _bad(f"{where}.release: got {arm.release[:80]!r}, expected sha256:<64 hex>")
    path = PurePosixPath(arm.folder)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != ("releases",):
        raise _bad(f"{where}.folder: got {arm.folder[:80]!r}, expected releases/<name>")
    if len(path.parts) != 2 or "\0" in arm.folder or "\\" in arm.folder:
        raise _bad(f"{where}.folder: got {arm.folder[:80]!r}, expected releases/<name>")
    if not 1 <= arm.timeout_ms <= 60_000:
        raise _bad(f"{where}.timeout_ms: got {arm.timeout_ms}, expected 1 to 60000")


def _salt(where: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad(f"{where}.split.salt: not base64") from None


def _bad(words: str) -> FalajError:
    shown = words.encode("utf-8", "backslashreplace").decode()  # half a pair cannot be printed
    return FalajError("serving.plan-field", f"plan.json: {shown}", fix=FIX)


def is_canary(
    salt: bytes, key: bytes, stratum: int, weight_bp: int, *, sticky: bool = False
) -> bool:
    """Tell whether a request belongs to the canary. Nested: a growing weight only adds keys.

    Keyed BLAKE2b, so that nobody who chooses keys can steer. Arms are drawn anew each stratum
    unless `sticky`, because sticky arms break the guarantee of the analysis.
    """
    text = key if sticky else b"%d\n%b" % (stratum, key)
    drawn = hashlib.blake2b(text, digest_size=8, key=salt).digest()
    return int.from_bytes(drawn, "little") < weight_bp * BP


class Split:
    """The split of one model under one plan, ready for the hot path."""

    __slots__ = ("header", "salt", "shadow_bp", "sticky", "stratum_ms", "weight_bp")

    def __init__(self, model: ModelPlan, server: str = "") -> None:
        """server: `server-2` is the second of its environment; asked for where a plan rolls."""
        split = model.split
        self.salt = base64.b64decode(split.salt)
        self.header = split.key[7:].lower().encode() if split.key != "request" else b""
        self.sticky = split.sticky
        self.stratum_ms = split.stratum_ms
        self.weight_bp = model.canary.weight_bp if model.canary else 0
        self.shadow_bp = model.shadow_bp if model.shadow else 0
        if model.rolled:
            number = server.rpartition("-")[2]
            on = number.isdecimal() and 1 <= int(number) <= model.rolled
            self.weight_bp = 10_000 if on else 0

    def key(self, headers: dict[bytes, bytes], request: bytes) -> bytes:
        """What draws the arm of this request."""
        return headers.get(self.header, request) if self.header else request

    def canary(self, headers: dict[bytes, bytes], request: bytes, stratum: int) -> bool:
        """`request`: boot and counter of the request, which no client chooses."""
        if not self.weight_bp:
            return False
        key = self.key(headers, request)
        return is_canary(self.salt, key, stratum, self.weight_bp, sticky=self.sticky)

    def shadows(self, request: bytes) -> bool:
        """Tell whether the shadow sees a request; independent of the split."""
        if self.shadow_bp >= 10_000:
            return True
        key = b"shadow\n%b" % request
        return is_canary(self.salt, key, 0, self.shadow_bp, sticky=True)
