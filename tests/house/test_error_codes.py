"""Every error code stands in the packaged page, with why and fix; the page holds no dead code."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

from falaj.doors.cli.codes import explanations

SRC = Path(__file__).parents[2] / "src" / "falaj"
CODE = re.compile(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*")
FAMILY = {
    "FalajError", "NotAllowed", "NotFound", "Conflict", "Unverified", "Waits", "GateFailed",
    "GateInconclusive", "Problem",
}  # fmt: skip


def classes():
    """The family with the classes that rooms add to it and that are raised with a code first."""
    found, makers = set(FAMILY), set()
    trees = [ast.parse(p.read_text()) for p in SRC.rglob("*.py")]
    nodes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    while True:
        more = {n.name for n in nodes if found & {getattr(b, "id", "") for b in n.bases}}
        makers |= {n for n in nodes if n.name in more and n.name not in FAMILY and has_init(n)}
        if more <= found:
            return found - {n.name for n in makers}, makers
        found |= more


def has_init(node):
    return any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)


def raised():
    """Codes as they are written at the place where they are raised, and prefixes of built ones."""
    family, makers = classes()
    inside = {id(n) for maker in makers for n in ast.walk(maker)}
    whole, begun = {}, {}
    for path in sorted(SRC.rglob("*.py")):
        at = path.relative_to(SRC).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = [k.value for k in node.keywords if k.arg == "code"]
            maker = name == "__init__" and id(node) in inside
            if (name in family or maker) and node.args:
                words.append(node.args[0])
            for word in words:
                for part in (word.body, word.orelse) if isinstance(word, ast.IfExp) else (word,):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        whole[part.value] = f"{at}:{node.lineno}"
                    elif isinstance(part, ast.JoinedStr) and isinstance(
                        part.values[0], ast.Constant
                    ):
                        begun[part.values[0].value] = f"{at}:{node.lineno}"
    return whole, begun


def texts():
    """Every text constant of the source: codes may also lie in tables."""
    return {
        node.value
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_codes_are_written_room_and_reason():
    whole, _ = raised()
    assert {code: at for code, at in whole.items() if not CODE.fullmatch(code)} == {}


def test_every_code_is_explained():
    whole, _ = raised()
    known = explanations()
    assert {code: at for code, at in whole.items() if code not in known} == {}


def test_every_explanation_is_of_a_code_that_is_raised():
    _, begun = raised()
    said = texts()
    dead = [
        code for code in explanations() if code not in said and not code.startswith(tuple(begun))
    ]
    assert dead == []


def test_the_page_is_in_order():
    codes = list(explanations())
    assert len(codes) == len(set(codes))
    rooms = [code.split(".")[0] for code in codes]
    assert len(set(rooms)) == len(list(itertools.groupby(rooms))), "one chapter a room"
