"""base/tokens: what is not exactly our token is refused, and says which rule."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from falaj.base import dsse, tokens
from falaj.links.keyring.keys import LocalSigner

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
ISSUER, AUDIENCE = "falaj:small", "falaj-api"
MOST = timedelta(hours=1)
OURS = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
OTHER = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
KID = dsse.hint_of(OURS.public)
HEADER = {"alg": "ES256", "kid": KID, "typ": "at+jwt"}
CLAIMS = {
    "iss": ISSUER, "aud": AUDIENCE, "sub": "layla", "iat": AT, "exp": AT + 900, "jti": "t-1",
}  # fmt: skip


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(value):
    return b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def made(header=HEADER, claims=CLAIMS, signer=OURS):
    message = f"{segment(header)}.{segment(claims)}"
    return f"{message}.{b64(tokens.raw_signature(signer.sign(message.encode())))}"


def verify(token, *, now=NOW, keys=None, issuer=ISSUER):
    return tokens.verify(
        token,
        issuer=issuer,
        audience=AUDIENCE,
        keys={KID: OURS.public} if keys is None else keys,
        now=now,
        max_lifetime=MOST,
    )


def refused(token, **how):
    with pytest.raises(tokens.BadToken) as caught:
        verify(token, **how)
    return str(caught.value)


def test_our_own_token_passes():
    token = tokens.issue(
        OURS, issuer=ISSUER, audience=AUDIENCE, subject="layla", now=NOW, lifetime=MOST
    )
    found = verify(token)
    assert (found.subject, found.expires_s) == ("layla", AT + 3600)
    assert found.token
    assert verify(made()) == ("layla", "t-1", AT + 900)


def test_one_of_several_audiences_is_enough():
    assert verify(made(claims=CLAIMS | {"aud": ["other", AUDIENCE]})).subject == "layla"


def hs256(key):
    message = f"{segment(HEADER | {'alg': 'HS256'})}.{segment(CLAIMS)}"
    return f"{message}.{b64(hmac.digest(key, message.encode(), hashlib.sha256))}"


def embedded():
    numbers = OTHER._private.public_key().public_numbers()
    x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


HEADERS = {
    "no signature at all": f"{segment(HEADER | {'alg': 'none'})}.{segment(CLAIMS)}.",
    "alg none with our signature": made(HEADER | {"alg": "none"}),
    "alg None in another case": made(HEADER | {"alg": "nOnE"}),
    "HS256 with the public key as secret": hs256(OURS.public),
    "HS256 with the public key without its last line break": hs256(OURS.public.strip()),
    "an algorithm of another family": made(HEADER | {"alg": "RS256"}),
    "an algorithm as a list": made(HEADER | {"alg": ["ES256"]}),
    "no algorithm": made({k: v for k, v in HEADER.items() if k != "alg"}),
    "a key of its own": made(HEADER | {"jwk": embedded()}, signer=OTHER),
    "a key of its own, without kid": made(
        {"alg": "ES256", "typ": "at+jwt", "jwk": embedded()}, signer=OTHER
    ),
    "an address of keys": made(HEADER | {"jku": "file:///keys.json"}),
    "an address of certificates": made(HEADER | {"x5u": "file:///c.pem"}),
    "certificates of its own": made(HEADER | {"x5c": ["MIIB"]}),
    "extensions that must be understood": made(HEADER | {"crit": ["b64"], "b64": False}),
    "no kid": made({k: v for k, v in HEADER.items() if k != "kid"}),
    "an unknown kid": made(HEADER | {"kid": dsse.hint_of(OTHER.public)}, signer=OTHER),
    "a kid that is a number": made(HEADER | {"kid": 0}),
    "a kid that is a list": made(HEADER | {"kid": [KID]}),
    "an empty kid": made(HEADER | {"kid": ""}),
    "an id token": made(HEADER | {"typ": "JWT"}),
    "no type": made({k: v for k, v in HEADER.items() if k != "typ"}),
    "our kid, another's signature": made(signer=OTHER),
    "a doubled key in the header": made(
        json.dumps(HEADER).encode()[:-1] + b',"alg":"ES256"}'
    ),
    "a header that is a list": made([HEADER]),
    "a header that is no JSON": made(b"{alg}"),
}  # fmt: skip


@pytest.mark.parametrize("token", HEADERS.values(), ids=HEADERS)
def test_the_header_is_ours_or_nobodys(token):
    assert refused(token)


def test_a_known_kid_with_a_key_of_another_kind_is_refused():
    other = LocalSigner(ec.generate_private_key(ec.SECP384R1()))
    assert refused(made(), keys={KID: other.public})


LONG = "x" * 9000
VALUES = {
    "wrong": {"iss": "falaj:other", "aud": "somebody", "exp": AT - 31, "iat": AT + 31},
    "another type": {"iss": 7, "aud": 7, "sub": 7, "exp": str(AT + 900), "iat": float(AT), "jti": 7},
    "null": dict.fromkeys(CLAIMS),
    "a list": {
        "iss": [ISSUER], "aud": [], "sub": ["layla"], "exp": [AT + 900], "iat": [AT], "jti": ["t-1"],
    },
    "an object": {name: {"a": 1} for name in CLAIMS},
    "true": dict.fromkeys(CLAIMS, True),
    "empty": {"iss": "", "aud": "", "sub": "", "jti": ""},
    "huge": {"iss": LONG, "aud": LONG, "exp": 10**30, "iat": -(10**30)},
    "with spaces around": {"iss": f" {ISSUER}", "aud": f"{AUDIENCE} "},
}  # fmt: skip
WRONG = {f"{name}: {how}": (name, bad) for how, row in VALUES.items() for name, bad in row.items()}


@pytest.mark.parametrize(("name", "bad"), WRONG.values(), ids=WRONG)
def test_each_claim_is_what_it_must_be(name, bad):
    refused(made(claims=CLAIMS | {name: bad}))


@pytest.mark.parametrize("name", CLAIMS)
def test_each_claim_is_there(name):
    said = refused(made(claims={k: v for k, v in CLAIMS.items() if k != name}))
    assert said == f"claim {name} is missing"


TIMES = {
    "expired": (CLAIMS | {"iat": AT - 960, "exp": AT - 60}, "expired"),
    "expired just now": (CLAIMS | {"iat": AT - 100, "exp": AT - 30}, "expired"),
    "issued in the future": (CLAIMS | {"iat": AT + 31, "exp": AT + 600}, "future"),
    "not good yet": (CLAIMS | {"nbf": AT + 31}, "nbf"),
    "good from a word on": (CLAIMS | {"nbf": "now"}, "nbf"),
    "lives too long": (CLAIMS | {"exp": AT + 3601}, "lives longer"),
    "ends before it begins": (CLAIMS | {"iat": AT + 20, "exp": AT - 20}, "lives longer"),
    "lives no second": (CLAIMS | {"exp": AT}, "lives longer"),
}


@pytest.mark.parametrize(("claims", "said"), TIMES.values(), ids=TIMES)
def test_a_token_has_its_time(claims, said):
    assert said in refused(made(claims=claims))


def test_clocks_may_differ_by_half_a_minute():
    assert verify(made(), now=NOW + timedelta(seconds=929))
    assert verify(made(), now=NOW - timedelta(seconds=30))
    assert "expired" in refused(made(), now=NOW + timedelta(seconds=930))


def test_the_token_of_another_project_is_refused():
    assert "issuer" in refused(made(), issuer="falaj:other")


CLAIM_TEXTS = {
    "a doubled claim": json.dumps(CLAIMS)[:-1] + ', "sub": "owner"}',
    "a doubled claim, escaped": json.dumps(CLAIMS)[:-1] + ', "s\\u0075b": "owner"}',
    "a list": json.dumps([CLAIMS]),
    "a text": '"layla"',
    "nothing": "",
    "not a number": json.dumps(CLAIMS)[:-1] + ', "x": NaN}',
    "a deep well": "[" * 6000,
}


@pytest.mark.parametrize("text", CLAIM_TEXTS.values(), ids=CLAIM_TEXTS)
def test_claims_are_read_strictly(text):
    refused(made(claims=text.encode()))


GARBAGE = [
    "", ".", "..", "...", "a.b.c", "Bearer", "\x00.\x00.\x00", "ل.ل.ل", "=.=.=", "{}.{}.{}",
    f"{segment(HEADER)}.{segment(CLAIMS)}", f"{made()}.x", f"x.{made()}", made() + "A",
    made()[:-4], made().replace(".", ".."), "x" * 20_000, f"{made()}{'A' * 20_000}",
]  # fmt: skip


@pytest.mark.parametrize("token", GARBAGE, ids=lambda t: repr(t[:24]))
def test_garbage_is_refused(token):
    assert len(refused(token)) < 300


@given(st.integers(0, len(made()) - 1), st.sampled_from("AZaz09-_.=+/ \n"))
def test_no_sign_of_a_token_can_be_changed(place, sign):
    good = made()
    bad = good[:place] + sign + good[place + 1 :]
    try:
        found = verify(bad)
    except tokens.BadToken:
        return
    # ECDSA and base64 leave one freedom: unused bits of the last sign. What is said stays the same.
    assert bad.rsplit(".", 1)[0] == good.rsplit(".", 1)[0]
    assert found == verify(good)


@given(st.text(max_size=200))
def test_any_text_is_refused_with_a_reason(text):
    assert refused(text)
