from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base.errors import Conflict, Exit, FalajError, NotAllowed, Place, Problem
from falaj.base.problems import document as problem_document
from falaj.doors.cli.codes import explain, explanations
from falaj.doors.cli.diagnostics import render


def shares():
    return FalajError(
        "config.out-of-range",
        "margin_to_champion is a share between 0 and 1, got 5",
        fix="write 0.05 for five percentage points",
        place=Place(
            file="falaj.toml",
            line=24,
            column=22,
            excerpt=((23, "at_least = 0.70"), (24, "margin_to_champion = 5")),
            note="5 would be 500 percentage points of roc_auc",
        ),
    )


def test_the_form_of_the_design():
    assert render(shares()) == (
        "error[config.out-of-range]: margin_to_champion is a share between 0 and 1, got 5\n"
        "  --> falaj.toml:24:22\n"
        "   |\n"
        "23 | at_least = 0.70\n"
        "24 | margin_to_champion = 5\n"
        "   |                      ^ 5 would be 500 percentage points of roc_auc\n"
        "   = fix: write 0.05 for five percentage points\n"
        "   = more: falaj explain config.out-of-range"
    )


def test_without_a_place_why_and_fix_remain():
    error = FalajError(
        "releases.evidence-missing",
        "release r-7 has no verdict for gate 'bias'",
        why="gate 'bias' is required by policy retail-v3",
        fix="run `falaj gate r-7 --only bias`",
    )
    assert render(error) == (
        "error[releases.evidence-missing]: release r-7 has no verdict for gate 'bias'\n"
        "  = why: gate 'bias' is required by policy retail-v3\n"
        "  = fix: run `falaj gate r-7 --only bias`\n"
        "  = more: falaj explain releases.evidence-missing"
    )


def test_a_narrow_terminal_keeps_the_caret_in_sight():
    place = Place(file="f", line=1, column=90, excerpt=((1, "x" * 89 + "HERE" + "y" * 60),))
    lines = render(FalajError("a.b", "m", place=place), width=40).split("\n")
    assert all(len(line) <= 40 for line in lines)
    code, caret = lines[-3], lines[-2]
    assert code[caret.index("^") :].startswith("HERE")


def test_wide_signs_move_the_caret():
    place = Place(file="f", line=1, column=6, excerpt=((1, "名 = 1x"),))
    caret = render(FalajError("a.b", "m", place=place)).split("\n")[-2]
    assert caret.index("^") == len("1 | ") + 6


HOSTILE = st.text(st.sampled_from("a \x1b[2J\x00\u202e\u2066\r\n\t\x9b"), max_size=30)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_names_of_others_cannot_steer_the_terminal(message, line, note):
    place = Place(file=message or "f", line=1, column=1, excerpt=((1, line),), note=note)
    shown = render(FalajError("a.b", message, why=note, fix=line, place=place))
    assert all(c == "\n" or c.isprintable() for c in shown)


def test_the_document_holds_every_problem():
    error = FalajError.of(
        (
            Problem(
                code="a.first",
                message="one",
                fix="do",
                place=Place(file="f", line=2, excerpt=((2, "x = 1"),), note="here"),
            ),
            Problem(code="a.second", message="two", why="because"),
        )
    )
    document = json.loads(json.dumps(problem_document(error)))
    assert document["type"] == "/problems/a.first"
    assert document["title"] == "a: first"
    assert document["status"] == 400
    assert document["detail"] == "one"
    assert document["exit"] == Exit.USAGE
    assert document["place"] == {
        "file": "f",
        "line": 2,
        "column": 1,
        "excerpt": [[2, "x = 1"]],
        "note": "here",
    }
    assert document["errors"][0]["place"] == document["place"]
    assert [e["code"] for e in document["errors"]] == ["a.first", "a.second"]
    assert document["errors"][1] == {
        "detail": "two", "code": "a.second", "why": "because", "fix": "", "place": None,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "status", "code"), [(NotAllowed, 403, 6), (Conflict, 409, 8)])
def test_the_family_decides_the_status_and_the_exit_code(kind, status, code):
    document = problem_document(kind("a.b", "m"))
    assert (document["status"], document["exit"]) == (status, code)


def test_what_a_server_told_is_the_error_that_it_was_there():
    """The client reads the document back: the same words, the same place, the same exit code."""
    from falaj.doors.cli.client import told

    error = Conflict("a.b", "m", why="w", fix="f", place=shares().problems[0].place)
    back = told(json.dumps(problem_document(error)).encode(), 409)
    assert back.problems == error.problems
    assert (back.exit, back.status) == (error.exit, error.status)
    assert render(back) == render(error)


def test_hostile_names_travel_as_json_escapes():
    place = Place(file="\x1b[2J\u202e", line=1)
    text = json.dumps(problem_document(FalajError("a.b", "\x1b", place=place)))
    assert text.isascii()
    assert "\x1b" not in text


def test_every_explanation_has_a_why_and_a_fix():
    for found in explanations().values():
        assert found.what
        assert found.why
        assert found.fix
        assert found.code in str(found)


def test_an_unknown_code_offers_the_nearest():
    with pytest.raises(FalajError) as caught:
        explain("config.unknwon-key")
    assert caught.value.code == "cli.unknown-code"
    assert "`config.unknown-key`" in caught.value.problems[0].fix
    assert explain("config.missing").code == "config.missing"
