"""Signed notes, checkpoints, proofs as files: what the specifications say, and nothing looser."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from falaj.base import merkle, note, tlog
from falaj.base.note import COSIGNATURE, ED25519, BadNote, Key
from falaj.base.tlog import Checkpoint, Growth, Proof

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
OTHERS = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
LOG = Key("log/loans/1", ED25519, PRIVATE.public_key().public_bytes_raw())
OTHER = Key("log/loans/1", ED25519, OTHERS.public_key().public_bytes_raw())
WITNESS = Key("witness.example/w", COSIGNATURE, OTHERS.public_key().public_bytes_raw())
LEAVES = [merkle.leaf(str(n).encode()) for n in range(13)]
HEAD = Checkpoint(LOG.name, 13, merkle.root(LEAVES))
TEXT = tlog.text_of(HEAD)
SIGNED = note.write_note(TEXT, [note.sign(TEXT, LOG, PRIVATE.sign)])


def seen(at=1_700_000_000, text=TEXT, key=WITNESS):
    return SIGNED + note.cosign(text, key, OTHERS.sign, at).line().encode()


def test_the_example_of_the_specification_is_read():
    """The key and the note of https://c2sp.org/signed-note, whose signature is not made by us."""
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    data = f"{text}\n— PeterNeumann {signature}\n".encode()
    opened = note.open_note(data, [note.read_key(vkey)])
    assert opened.text == text
    assert opened.names() == ("PeterNeumann",)
    with pytest.raises(BadNote):
        note.open_note(data.replace(b"answer", b"Answer"), [note.read_key(vkey)])


def test_what_was_signed_is_opened_by_its_key():
    opened = note.open_note(SIGNED, [LOG])
    assert tlog.read_checkpoint(opened.text) == HEAD
    assert note.open_note(seen(), [LOG, WITNESS]).by == ((LOG, 0), (WITNESS, 1_700_000_000))
    assert note.open_note(seen(), [LOG]).names() == (LOG.name,)


REFUSED = {
    "nobody is trusted": (SIGNED, []),
    "the same name with another key": (SIGNED, [OTHER]),
    "another name with the same key": (SIGNED, [LOG._replace(name="log/loans/2")]),
    "the key of a witness is none of a log": (SIGNED, [LOG._replace(kind=COSIGNATURE)]),
    "changed text": (SIGNED.replace(b"\n13\n", b"\n14\n"), [LOG]),
    "a cosignature over another text": (seen(text=TEXT.replace("13", "14")), [LOG, WITNESS]),
}


@pytest.mark.parametrize(("data", "keys"), REFUSED.values(), ids=REFUSED)
def test_what_nobody_trusted_has_signed_is_refused(data, keys):
    with pytest.raises(BadNote):
        note.open_note(data, keys)


def test_one_bad_signature_of_a_known_key_spoils_the_note():
    """Also beside good ones: SIGNED holds, the line behind it does not."""
    bad = note.Signature(WITNESS.name, WITNESS.id, bytes(72))
    with pytest.raises(BadNote, match="does not hold"):
        note.open_note(SIGNED + bad.line().encode(), [LOG, WITNESS])
    assert note.open_note(SIGNED + bad.line().encode(), [LOG]).text == TEXT


def test_a_time_that_was_changed_spoils_a_cosignature():
    one = note.cosign(TEXT, WITNESS, OTHERS.sign, 1_700_000_000)
    later = one._replace(blob=(1_700_000_001).to_bytes(8, "big") + one.blob[8:])
    beyond = one._replace(blob=b"\xff" * 8 + one.blob[8:])
    for line in (later, beyond):
        with pytest.raises(BadNote):
            note.open_note(SIGNED + line.line().encode(), [LOG, WITNESS])


FORMS = {
    "empty": b"",
    "no blank line": b"text\n",
    "no signature": TEXT.encode() + b"\n",
    "cut off": SIGNED[:-1],
    "not UTF-8": SIGNED.replace(b"13", b"\xff3"),
    "a tab": SIGNED.replace(b"13", b"1\t"),
    "a carriage return": SIGNED.replace(b"\n", b"\r\n"),
    "a hyphen for a dash": SIGNED.replace("— ".encode(), b"- "),
    "base64 with a space": SIGNED[:-1] + b" \n",
    "base64 in another spelling": SIGNED.replace(b"=\n", b"\n"),
    "a signature of four bytes": TEXT.encode() + b"\n\xe2\x80\x94 a AAAAAA==\n",
    "a name with a plus": SIGNED.replace("— log".encode(), "— l+g".encode()),
    "a signature twice": SIGNED + SIGNED[SIGNED.index("—".encode()) :],
    "a hundred and one signatures": TEXT.encode()
    + b"\n"
    + b"".join(note.Signature(f"k{n}", b"1234", b"5").line().encode() for n in range(101)),
    "larger than a mebibyte": b"a" * (1 << 20) + SIGNED,
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_what_is_no_note_is_refused(data):
    with pytest.raises(BadNote):
        note.open_note(data, [LOG])


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_readers(data):
    for read in (
        note.read_note,
        tlog.read_proof,
        tlog.read_growth,
        lambda d: tlog.read_checkpoint(d.decode(errors="replace")),
        lambda d: note.read_key(d.decode(errors="replace")),
    ):
        try:
            read(data)
        except BadNote:
            continue


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_no_bit_of_a_signed_checkpoint_is_free(at, bit):
    data = bytearray(SIGNED)
    data[at] ^= 1 << bit
    with pytest.raises(BadNote):
        tlog.read_checkpoint(note.open_note(bytes(data), [LOG]).text)


CHECKPOINTS = {
    "two lines": "o\n1\n",
    "an extension line": TEXT + "more\n",
    "a size with a zero before it": TEXT.replace("13", "013"),
    "a size below nothing": TEXT.replace("13", "-1"),
    "a size in other digits": TEXT.replace("13", "١٣"),
    "a size beyond all": TEXT.replace("13", "9" * 19),
    "a root that is too short": "o\n1\nAAAA\n",
    "no origin": TEXT.replace(LOG.name, ""),
    "an origin with a space": TEXT.replace(LOG.name, "a b"),
}


@pytest.mark.parametrize("text", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(BadNote):
        tlog.read_checkpoint(text)


def test_keys_travel_as_lines():
    for key in (LOG, WITNESS):
        assert note.read_key(note.write_key(key)) == key


LINES = {
    "nothing": "",
    "no parts": "abc",
    "another id": note.write_key(LOG).replace(LOG.id.hex(), "00000000"),
    "another name": note.write_key(LOG).replace("loans", "loads"),
    "another kind": f"a+00000000+{base64.b64encode(bytes([2]) + bytes(32)).decode()}",
    "a short key": f"a+00000000+{base64.b64encode(bytes([1]) + bytes(31)).decode()}",
    "damaged": note.write_key(LOG)[:-4] + "!!!!",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_what_is_no_key_is_refused(line):
    with pytest.raises(BadNote):
        note.read_key(line)


# --- proofs as files ---

PROOF = Proof(4, merkle.inclusion(LEAVES, 4), SIGNED)
GROWTH = Growth(5, merkle.consistency(LEAVES, 5), SIGNED)


def test_a_proof_file_reads_as_it_was_written():
    for proof in (PROOF, PROOF._replace(extra=b'{"a":1}'), PROOF._replace(place=0, hashes=())):
        assert tlog.read_proof(tlog.write_proof(proof)) == proof
    assert tlog.write_proof(PROOF).startswith(b"c2sp.org/tlog-proof@v1\nindex 4\n")
    for growth in (GROWTH, Growth(0, (), SIGNED)):
        assert tlog.read_growth(tlog.write_growth(growth)) == growth
    assert tlog.write_growth(GROWTH).startswith(b"old 5\n")


WRITTEN = tlog.write_proof(PROOF)
PROOFS = {
    "empty": b"",
    "another version": WRITTEN.replace(b"@v1", b"@v2"),
    "no index": WRITTEN.replace(b"index 4\n", b""),
    "an index with a zero before it": WRITTEN.replace(b"index 4", b"index 04"),
    "a hash that is too short": WRITTEN.replace(b"index 4\n", b"index 4\nAAAA\n"),
    "sixty-four hashes": tlog.write_proof(PROOF._replace(hashes=(LEAVES[0],) * 64)),
    "a checkpoint that is none": WRITTEN[: WRITTEN.index(b"\n\n") + 2] + b"hello\n",
    "extra behind the index": WRITTEN.replace(b"index 4\n", b"index 4\nextra AAAA\n"),
    "extra that is no base64": WRITTEN.replace(b"index 4\n", b"extra ?\nindex 4\n"),
}


@pytest.mark.parametrize("data", PROOFS.values(), ids=PROOFS)
def test_what_is_no_proof_is_refused(data):
    with pytest.raises(BadNote):
        tlog.read_proof(data)


GROWTHS = {
    "empty": b"",
    "no old size": tlog.write_growth(GROWTH).removeprefix(b"old 5\n"),
    "a negative one": tlog.write_growth(GROWTH).replace(b"old 5", b"old -5"),
    "no checkpoint": b"old 0\n\n",
    "sixty-four hashes": tlog.write_growth(GROWTH._replace(hashes=(LEAVES[0],) * 64)),
}


@pytest.mark.parametrize("data", GROWTHS.values(), ids=GROWTHS)
def test_what_is_no_proof_of_growth_is_refused(data):
    with pytest.raises(BadNote):
        tlog.read_growth(data)


# --- what every witness decides ---


def head(size, leaves=LEAVES):
    return Checkpoint(LOG.name, size, merkle.root(leaves[:size]))


FORK = [*LEAVES[:4], merkle.leaf(b"another"), *LEAVES[5:]]
JUDGED = {
    "the first one": (None, Growth(0, (), b""), head(13), None),
    "a longer one": (head(5), GROWTH, head(13), None),
    "the same one": (head(13), Growth(13, (), b""), head(13), None),
    "begins with nothing, though one is held": (head(5), Growth(0, (), b""), head(13), tlog.Elsewhere),
    "begins elsewhere": (head(6), GROWTH, head(13), tlog.Elsewhere),
    "begins somewhere, though none is held": (None, GROWTH, head(13), tlog.Elsewhere),
    "a fork of the same size": (head(13), Growth(13, (), b""), head(13, FORK), tlog.Forked),
    "a fork that is longer": (
        head(5), Growth(5, merkle.consistency(FORK, 5), b""), head(13, FORK), tlog.Forked,
    ),
    "no proof": (head(5), Growth(5, (), b""), head(13), tlog.Forked),
    "shorter": (head(13), Growth(13, (), b""), head(5), tlog.Forked),
    "another log": (head(5)._replace(origin="log/x"), GROWTH, head(13), tlog.Forked),
}  # fmt: skip


@pytest.mark.parametrize(("held", "growth", "new", "error"), JUDGED.values(), ids=JUDGED)
def test_what_a_witness_decides(held, growth, new, error):
    if error is None:
        tlog.judge(held, growth, new)
        return
    with pytest.raises(error):
        tlog.judge(held, growth, new)


# --- tiles ---

TILES = {
    0: [],
    1: [(0, 0, 1)],
    256: [(0, 0, 256), (1, 0, 1)],
    257: [(0, 0, 256), (0, 1, 1), (1, 0, 1)],
}


@pytest.mark.parametrize(("size", "wanted"), TILES.items())
def test_the_tiles_of_a_size(size, wanted):
    assert [tuple(tile) for tile in tlog.tiles(size)] == wanted


def test_the_tiles_of_the_specification():
    found = tlog.tiles(70_000)
    assert len(found) == 273 + 1 + 1 + 1 + 1
    assert [t.width for t in found if t.width != 256] == [112, 17, 1]
    assert tlog.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tlog.tile_path("entries", 273, 112) == "tile/entries/273.p/112"
    assert tlog.tile_path(1, 0, 17) == "tile/1/000.p/17"
