"""Every error code stands in the packaged page, with why and fix; the page holds no dead code."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

from falaj.doors.cli.codes import explanations
from falaj.links.sql.tables import FAMILIES

SRC = Path(__file__).parents[2] / "src" / "falaj"
CODE = re.compile(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*")
FAMILY = {
    "FalajError", "NotAllowed", "NotFound", "Conflict", "Unverified", "Waits", "GateFailed",
    "GateInconclusive", "Problem",
}  # fmt: skip

ROOMS = {
    "access", "api", "audit", "changes", "cli", "compliance", "config", "data", "demo",
    "evaluation", "imports", "keys", "learning", "monitoring", "pipelines", "releases", "remote", "rollouts", "runs", "scans", "score", "serving", "stats",
    "store", "target", "testing", "tracking",
}  # fmt: skip
FILES = {"json", "pkl", "toml", "md", "parquet", "db", "cedar", "py", "txt", "csv", "yaml", "jsonl"}


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
    """Code -> a place that raises it, and the beginnings of codes that are built at run time."""
    family, makers = classes()
    inside = {id(n) for maker in makers for n in ast.walk(maker)}
    whole, begun = {}, {}
    for path in sorted(SRC.rglob("*.py")):
        at = path.relative_to(SRC).as_posix()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and is_code(node.value)
            ):
                whole[node.value] = f"{at}:{node.lineno}"
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = [k.value for k in node.keywords if k.arg == "code"]
            maker = name == "__init__" and id(node) in inside
            if (name in family or maker) and node.args:
                words.append(node.args[0])
            for word in words:
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    whole[word.value] = f"{at}:{node.lineno}"
                elif isinstance(word, ast.JoinedStr) and isinstance(word.values[0], ast.Constant):
                    begin = word.values[0].value
                    found = asked_of(tree, node, word)
                    whole |= {f"{begin}{end}": f"{at}:{line}" for end, line in found.items()}
                    if not found:
                        begun[begin] = f"{at}:{node.lineno}"
    return whole, begun


def is_code(text):
    room, _, end = text.partition(".")
    return bool(CODE.fullmatch(text)) and room in ROOMS and end not in FILES


def asked_of(tree, call, word):
    """The ends that callers hand to a function which puts its own room before its argument."""
    end = word.values[-1]
    argument = getattr(getattr(end, "value", None), "id", "")
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or call not in ast.walk(function):
            continue
        names = [a.arg for a in function.args.args if a.arg != "self"]
        if argument not in names:
            continue
        place = names.index(argument)
        return {
            node.args[place].value: node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == function.name
            and len(node.args) > place
            and isinstance(node.args[place], ast.Constant)
        }
    return {}


def test_codes_are_written_room_and_reason():
    whole, _ = raised()
    assert {code: at for code, at in whole.items() if not CODE.fullmatch(code)} == {}


def test_every_code_is_explained():
    whole, _ = raised()
    known = explanations()
    assert {code: at for code, at in whole.items() if code not in known} == {}


def test_every_explanation_is_of_a_code_that_is_raised():
    whole, begun = raised()
    source = "".join(path.read_text() for path in SRC.rglob("*.py"))
    dead = [
        code
        for code in explanations()
        if code not in whole and code not in source and not code.startswith(tuple(begun))
    ]
    assert dead == []


def test_everything_that_can_be_missing_is_explained():
    """The store builds `store.no-<noun>` from its table of families."""
    nouns = {family.table.name.replace("_", "-") for family in FAMILIES.values()}
    assert {f"store.no-{noun}" for noun in nouns} <= set(explanations())


def test_the_page_is_in_order():
    codes = list(explanations())
    assert len(codes) == len(set(codes))
    rooms = [code.split(".")[0] for code in codes]
    assert len(set(rooms)) == len(list(itertools.groupby(rooms))), "one chapter a room"
