"""Habits of the source that a machine can see. Each says which danger it keeps away."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "falaj"
TESTS = ROOT / "tests"

# The guarded edge of a port, or the top of a door. Everywhere else: name what you catch.
CATCH_ALL = {
    "serving/runtimes/onnx.py": "the engine's own classes cannot be imported by name",
    "serving/runtimes/xgboost.py": "the engine's own classes",
    "serving/runtimes/lightgbm.py": "the engine's own classes",
    "serving/runtimes/skops.py": "the library's own classes",
    "serving/runtimes/child.py": "code of others, in its sandbox: what it raises is an answer",
    "serving/score.py": "engines raise classes of their own",
    "serving/loading.py": "engines raise classes of their own",
    "journeys/convert.py": "Polars has errors that no class of its own joins",
    "journeys/imports.py": "the engine's own classes cannot be imported by name",
    "evaluation/service.py": "a check or a model that breaks is a verdict: error",
    "links/bubblewrap/child.py": "the converter's errors have no common class",
    "evaluation/formats/decide.py": "what a parser cannot judge is quarantined, whatever it raises",
    "evaluation/formats/foreign.py": "what the pickle rules cannot judge is refused",
    "doors/cli/main.py": "the top of a door",
    "doors/worker/mlflow.py": "the client library in a step is code of others",
    "doors/predict/routes.py": "the top of a door: a bug must not take the connection down",
    "doors/predict/server.py": "the top of a door: the clock must not stop",
    "links/feast/child.py": "the edge of a process: what breaks in it is an answer",
    "pipelines/attempt.py": "a step is code of others",
    "pipelines/checking.py": "a project's check is code of others",
    "pipelines/loading.py": "a project's module is code of others",
    "pipelines/plan.py": "a pipeline's body and annotations are code of others",
}


def trees(folder):
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), ast.parse(path.read_text())


def name_of(node):
    """`a.b.c` of a name or attribute, else nothing."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def test_decisions_look_at_no_clock_and_wait_for_nothing():
    found = []
    for at, tree in trees(SRC):
        if not at.endswith("rules.py"):
            continue
        for node in ast.walk(tree):
            name = name_of(node.func) if isinstance(node, ast.Call) else ""
            clock = name.endswith((".now", ".today", ".utcnow")) or name in ("open", "now", "print")
            if clock or isinstance(node, ast.Await | ast.AsyncFunctionDef):
                found.append(f"{at}:{node.lineno} {name or 'async'}")
    assert found == []


def test_catching_everything_has_few_homes():
    found = {}
    for at, tree in trees(SRC):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            everything = node.type is None or any(
                name_of(kind) in ("Exception", "BaseException") for kind in kinds
            )
            goes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if everything and not goes_on:  # tidying up and raising again hides nothing
                found.setdefault(at, []).append(node.lineno)
    assert {at: lines for at, lines in found.items() if at not in CATCH_ALL} == {}
    assert [at for at in CATCH_ALL if at not in found] == [], "no longer needed, strike it out"


def test_no_class_grows_into_the_store_of_everything():
    for at, tree in trees(SRC):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                public = [
                    part.name
                    for part in node.body
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not part.name.startswith("_")
                ]
                assert len(public) <= 25, f"{at}: {node.name} has {len(public)} public methods"


def test_every_module_opens_the_same_way():
    for at, tree in trees(SRC):
        if at.endswith("__init__.py"):
            continue
        imports = [n for n in tree.body if isinstance(n, ast.ImportFrom)]
        assert any(n.module == "__future__" for n in imports), f"{at}: annotations from __future__"
        if "/migrations/" in at or at.endswith("__main__.py"):
            continue
        names = [name_of(t) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
        assert "__all__" in names, f"{at}: no __all__"


def test_facts_are_frozen_and_keyword_only():
    for at, tree in trees(SRC / "facts"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and "Fact" in map(name_of, node.bases):
                words = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert words.get("frozen") is True, f"{at}: {node.name} is not frozen"
                assert words.get("kw_only") is True, f"{at}: {node.name} is not keyword-only"


def test_our_own_code_is_never_mocked():
    for at, tree in trees(TESTS):
        ours = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "unittest.mock", at
                assert not (node.module == "unittest" and "mock" in {a.name for a in node.names}), (
                    at
                )
                if (node.module or "").split(".")[0] == "falaj":
                    ours |= {alias.asname or alias.name for alias in node.names}
            if isinstance(node, ast.Import):
                assert "unittest.mock" not in {alias.name for alias in node.names}, at
        ours.add("falaj")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func).startswith("monkeypatch."):
                target = node.args[0] if node.args else None
                text = target.value if isinstance(target, ast.Constant) else name_of(target)
                changes = node.func.attr in ("setattr", "delattr", "setitem", "delitem")
                own = changes and str(text).split(".")[0] in ours
                assert not own, f"{at}:{node.lineno} bends {text}"


def test_no_test_skips_itself():
    """A skip is never a pass. Outside systems are asked for in tests/parts, which counts them."""
    words = {
        "pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif",
        "pytest.mark.xfail", "pytest.xfail", "unittest.skip",
    }  # fmt: skip
    for at, tree in trees(TESTS):
        if at.startswith("parts/"):
            continue
        found = {name_of(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert found & words == set(), at


# Names of specifications; nothing is ever fetched from there.
IDENTIFIERS = (
    "https://in-toto.io/Statement/",
    "https://in-toto.io/attestation/",
    "https://json.schemastore.org/",
    "https://slsa.dev/",
    "https://model_signing/",
    "https://cyclonedx.org/",
    "http://cyclonedx.org/",
    "http://www.w3.org/",
    "https://www.w3.org/",
    "https://json-schema.org/",
    "https://spdx.org/",
)
LOOPBACK = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\]|falaj)\b")
ADDRESS = re.compile(r"(?:https?:)?//[a-z0-9\[][a-z0-9_.:\]-]*[^\s\"'<>)`]*", re.IGNORECASE)


def sayings(tree):
    """Text constants that the program uses: all but docstrings."""
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_the_program_knows_no_address_outside():
    found = []
    for at, tree in trees(SRC):
        for line, text in sayings(tree):
            found += [
                f"{at}:{line} {address}"
                for address in re.findall(r"https?://[a-z0-9\[][^\s\"'<>)`]*", text)
                if not address.startswith(IDENTIFIERS) and not LOOPBACK.match(address)
            ]
    assert found == []


def test_pages_and_styles_load_nothing_from_outside():
    found = []
    for path in sorted(SRC.rglob("*")):
        if path.suffix not in (".html", ".css", ".js", ".svg"):
            continue
        for address in ADDRESS.findall(path.read_text()):
            if address.startswith("//") and path.suffix == ".js":
                continue  # a comment
            if not address.startswith(IDENTIFIERS):
                found.append(f"{path.relative_to(SRC)}: {address}")
    assert found == []


def test_the_text_speaks_of_the_project_alone():
    """No paths of a builder's machine, nothing left to do."""
    places = re.compile(r"/(?:work|root|home/[a-z]+)/")
    left = re.compile(r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError$", re.MULTILINE)
    for folder in ("src", "tests", "bench", "docs", "examples", "deploy", "requirements", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".toml", ".txt", ".sh", ".yaml", ".yml", ".html", ""):
                if not path.is_file() or "__pycache__" in path.parts or ".envs" in path.parts:
                    continue
                text = path.read_text()
                at = path.relative_to(ROOT)
                if path != Path(__file__):
                    assert not left.search(text), f"{at}: {left.search(text)}"
                    assert not places.search(text), f"{at}: {places.search(text)}"


# --- unpickling ---

LOADERS = ("pickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal", "pickletools")
# Files of the rooms that judge pickles, and of the child that loads one, inside the sandbox alone.
READ_PICKLES = ("evaluation/formats/pickles.py", "links/bubblewrap/child.py")


def test_no_room_that_serves_or_releases_can_unpickle():
    """One table bounds what is loaded; nothing beside it can load code."""
    found = []
    for at, tree in trees(SRC):
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            found += [
                f"{at}:{node.lineno} imports {name}"
                for name in names
                if name.split(".")[0] in LOADERS and at not in READ_PICKLES
            ]
            if not isinstance(node, ast.Call):
                continue
            words = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if name_of(node.func) == "torch.load" and words.get("weights_only") is not True:
                found.append(f"{at}:{node.lineno} torch.load without weights_only=True")
            if (
                name_of(node.func).endswith((".load", ".save"))
                and words.get("allow_pickle") is True
            ):
                found.append(f"{at}:{node.lineno} allow_pickle=True")
            if name_of(node.func) in ("import_module", "importlib.import_module", "__import__"):
                named = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                if str(named).split(".")[0] in LOADERS:
                    found.append(f"{at}:{node.lineno} imports {named}")
    assert found == []
