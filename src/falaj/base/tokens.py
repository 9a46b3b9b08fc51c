"""Access tokens: ES256 JWTs of type at+jwt, verified with every claim spelled out.

`decode` of the library alone checks no claim, and with one key it takes a token without `kid`:
everything that matters is required here by name.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from falaj.base import canonical, dsse, ids

__all__ = ["BadToken", "Claims", "issue", "verify"]

LEEWAY_S: Final = 30
FORBIDDEN: Final = ("jwk", "jku", "x5u", "x5c", "crit")
ESSENTIAL: Final = ("iss", "aud", "sub", "exp", "iat", "jti")


class BadToken(ValueError):
    """The token is refused; the text says which rule."""


class Claims(NamedTuple):
    subject: str
    token: str
    expires_s: int


def issue(
    signer: dsse.Signs,
    *,
    issuer: str,
    audience: str,
    subject: str,
    now: datetime,
    lifetime: timedelta,
    thumbprint: str = "",
) -> str:
    """Sign a token for `subject`, good from now for `lifetime`; thumbprint: bound to it."""
    at = int(now.timestamp())
    header = {"alg": "ES256", "kid": dsse.hint_of(signer.public), "typ": "at+jwt"}
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "iat": at,
        "exp": at + int(lifetime.total_seconds()),
        "jti": ids.new(),
        **({"cnf": {"x5t#S256": thumbprint}} if thumbprint else {}),
    }
    message = f"{segment(header)}.{segment(claims)}".encode()
    return f"{message.decode()}.{encode(raw_signature(signer.sign(message)))}"


def verify(
    token: str,
    *,
    issuer: str,
    audience: str,
    keys: dict[str, bytes],
    now: datetime,
    max_lifetime: timedelta,
    thumbprint: str = "",
) -> Claims:
    """Check everything; `keys`: kid -> public PEM. Raises BadToken.

    thumbprint: x5t#S256 of the client certificate, base64url. A token that is bound to a certificate
    (RFC 8705, 3.1) is good in its owner's hands only.
    """
    from joserfc import jwk, jws
    from joserfc.errors import JoseError

    header = part(token, 0)
    refused = [name for name in FORBIDDEN if name in header]
    if refused:
        raise BadToken(f"header may not hold {refused[0]}")
    if header.get("alg") != "ES256" or header.get("typ") != "at+jwt":
        raise BadToken("header: expected alg ES256 and typ at+jwt")
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in keys:
        raise BadToken("header: kid is missing or unknown")
    try:
        jws.deserialize_compact(token, jwk.ECKey.import_key(keys[kid]), algorithms=["ES256"])
    except (JoseError, ValueError) as error:
        raise BadToken(f"signature: {error}") from None
    claims = part(token, 1)
    if "cnf" in claims:
        _bound(claims["cnf"], thumbprint)
    return checked(
        claims, issuer, audience, int(now.timestamp()), int(max_lifetime.total_seconds())
    )


def _bound(confirmation: Any, thumbprint: str) -> None:
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise BadToken("claim cnf: expected x5t#S256 alone")
    if not thumbprint or confirmation["x5t#S256"] != thumbprint:
        raise BadToken("claim cnf: bound to another certificate")


def checked(claims: dict[str, Any], issuer: str, audience: str, now_s: int, most_s: int) -> Claims:
    missing = [name for name in ESSENTIAL if name not in claims]
    if missing:
        raise BadToken(f"claim {missing[0]} is missing")
    if claims["iss"] != issuer:
        raise BadToken("claim iss: another issuer")
    found = claims["aud"]
    if audience not in (found if isinstance(found, list) else [found]):
        raise BadToken("claim aud: not for us")
    exp, iat, sub, jti = claims["exp"], claims["iat"], claims["sub"], claims["jti"]
    if type(exp) is not int or type(iat) is not int:
        raise BadToken("claims exp and iat must be whole seconds")
    if not isinstance(sub, str) or not sub:
        raise BadToken("claim sub must name somebody")
    if not isinstance(jti, str) or not jti:
        raise BadToken("claim jti must name the token")
    if iat > now_s + LEEWAY_S:
        raise BadToken("issued in the future")
    start = claims.get("nbf", iat)
    if type(start) is not int or start > now_s + LEEWAY_S:
        raise BadToken("not good yet (nbf)")
    if exp <= now_s - LEEWAY_S:
        raise BadToken("expired")
    if not 0 < exp - iat <= most_s:
        raise BadToken(f"lives longer than the allowed {most_s} s")
    return Claims(sub, jti, exp)


def part(token: str, index: int) -> dict[str, Any]:
    pieces = token.split(".")
    if len(pieces) != 3 or len(token) > 16_384:
        raise BadToken("not a compact token of three parts")
    text = pieces[index]
    try:
        value = canonical.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError as error:
        raise BadToken(f"part {index}: {error}") from None
    if not isinstance(value, dict):
        raise BadToken(f"part {index} is not an object")
    return value


def raw_signature(der: bytes) -> bytes:
    """JWS wants r || s, 32 bytes each (RFC 7518, 3.4); keys give DER."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def segment(value: dict[str, Any]) -> str:
    return encode(json.dumps(value, separators=(",", ":")).encode())


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
