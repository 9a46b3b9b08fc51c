"""Which edits make a step run again: each case ran stale in at least one other engine."""

from __future__ import annotations

import pytest

from falaj.pipelines.closure import Scanner

STEP = """
from falaj import pipeline, step
{imports}

@step
def s(x: int) -> int:
    {inner}
    return {call}

@pipeline
def main() -> int:
    return s(1)
"""


def pipe(imports="", call="f(x)", inner="pass"):
    return STEP.format(imports=imports, call=call, inner=inner)


# name -> pipeline.py, other files, the file that changes, from, to
CHANGES = {
    "function by from-import": (
        pipe("from lib import f"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "function two calls deep": (
        pipe("from lib import f"),
        {"lib.py": "def g(x): return x + 1\ndef f(x): return g(x)"},
        "lib.py", "+ 1", "+ 9",
    ),
    "attribute of a module": (
        pipe("import lib", "lib.f(x)"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "attribute of a module, two deep": (
        pipe("import mid", "mid.f(x)"),
        {"mid.py": "import lib\ndef f(x): return lib.f(x)", "lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "import inside the body": (
        pipe(inner="from lib import f"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "method of a base class in another file": (
        pipe("from lib import A\nclass B(A): pass", "B().f(x)"),
        {"lib.py": "class A:\n    def f(self, x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "function in a registry": (
        pipe("from lib import R", "R['f'](x)"),
        {"lib.py": "def f(x): return x + 1\nR = {'f': f}"},
        "lib.py", "+ 1", "+ 9",
    ),
    "argument of a partial": (
        pipe("from lib import p", "p(x)"),
        {"lib.py": "import functools\ndef f(k, x): return x + k\np = functools.partial(f, 1)"},
        "lib.py", "f, 1", "f, 9",
    ),
    "body under a wraps decorator": (
        pipe("from lib import f"),
        {
            "lib.py": "import functools\ndef d(fn):\n    @functools.wraps(fn)\n"
            "    def w(*a): return fn(*a)\n    return w\n@d\ndef f(x): return x + 1"
        },
        "lib.py", "+ 1", "+ 9",
    ),
    "method of an instance in a module": (
        pipe("from lib import o", "o.f(x)"),
        {"lib.py": "class A:\n    def f(self, x): return x + 1\no = A()"},
        "lib.py", "+ 1", "+ 9",
    ),
    "constant through a helper": (
        pipe("from lib import f"),
        {"lib.py": "from rates import RATE\ndef f(x): return x + RATE", "rates.py": "RATE = 1"},
        "rates.py", "= 1", "= 9",
    ),
    "constant of the same file": (pipe("K = 1", "x + K"), {}, "pipeline.py", "K = 1", "K = 9"),
    "the body itself": (pipe(call="x + 1"), {}, "pipeline.py", "x + 1", "x + 9"),
    "helper of the same file": (
        pipe("def f(x): return x + 1"), {}, "pipeline.py", "+ 1", "+ 9",
    ),
    "relative import of a name": (
        pipe("from p.a import f"),
        {"p/__init__.py": "", "p/a.py": "from .b import f", "p/b.py": "def f(x): return x + 1"},
        "p/b.py", "+ 1", "+ 9",
    ),
    "relative import of a module": (
        pipe("from p.a import f"),
        {
            "p/__init__.py": "",
            "p/a.py": "from . import b\ndef f(x): return b.f(x)",
            "p/b.py": "def f(x): return x + 1",
        },
        "p/b.py", "+ 1", "+ 9",
    ),
    "relative import from the package above": (
        pipe("from p.q.a import f"),
        {
            "p/__init__.py": "", "p/q/__init__.py": "", "p/r.py": "def f(x): return x + 1",
            "p/q/a.py": "from ..r import f",
        },
        "p/r.py", "+ 1", "+ 9",
    ),
    "import of a submodule": (
        pipe("import p.b", "p.b.f(x)"),
        {"p/__init__.py": "", "p/b.py": "def f(x): return x + 1"},
        "p/b.py", "+ 1", "+ 9",
    ),
    "code in __init__": (
        pipe("from p.b import f"),
        {"p/__init__.py": "K = 1", "p/b.py": "import p\ndef f(x): return x + p.K"},
        "p/__init__.py", "K = 1", "K = 9",
    ),
    "re-export": (
        pipe("from p import f"),
        {"p/__init__.py": "from p.b import f", "p/b.py": "def f(x): return x + 1"},
        "p/b.py", "+ 1", "+ 9",
    ),
    "relative import in __init__": (
        pipe("from p import f"),
        {"p/__init__.py": "from .b import f", "p/b.py": "def f(x): return x + 1"},
        "p/b.py", "+ 1", "+ 9",
    ),
    "star import": (
        pipe("from lib import *"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "namespace package": (
        pipe("from ns.b import f"),
        {"ns/b.py": "def f(x): return x + 1"},
        "ns/b.py", "+ 1", "+ 9",
    ),
    "src layout": (
        pipe("from p.b import f"),
        {"src/p/__init__.py": "", "src/p/b.py": "def f(x): return x + 1"},
        "src/p/b.py", "+ 1", "+ 9",
    ),
    "import in a try": (
        pipe("try:\n    from lib import f\nexcept ImportError:\n    f = None"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "import_module with a literal": (
        pipe("import importlib\nm = importlib.import_module('lib')", "m.f(x)"),
        {"lib.py": "def f(x): return x + 1"},
        "lib.py", "+ 1", "+ 9",
    ),
    "import cycle": (
        pipe("from a import f"),
        {
            "a.py": "import b\ndef f(x): return b.g(x)\nK = 1",
            "b.py": "import a\ndef g(x): return x + a.K",
        },
        "a.py", "K = 1", "K = 9",
    ),
    "docstring, because code may read it": (
        pipe("from lib import f", "x + len(f.__doc__)"),
        {"lib.py": "def f(x):\n    'one'"},
        "lib.py", "'one'", "'three'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("main", "files", "name", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_a_change_reruns_with_the_new_result(shop, main, files, name, old, new):
    shop.write({"pipeline.py": main, **files})
    first = shop.value(shop.run())
    again = shop.run()
    assert shop.states(again) == {"s": "cached"} and shop.value(again) == first
    shop.edit(name, old, new)
    after = shop.run()
    assert shop.states(after) == {"s": "executed"}
    assert shop.value(after) != first
    assert name in after.steps[0].why


def test_a_decorator_in_another_file_does_not_hide_the_step(shop):
    """Without functools.wraps the function looks as if it lived in the decorator's file."""
    shop.write(
        pipeline=pipe("from lib import loud")
        .replace("@step\n", "@step\n@loud\n")
        .replace("f(x)", "x + 1"),
        lib="def loud(fn):\n    def w(x: int) -> int:\n        return fn(x)\n    return w\n",
    )
    assert shop.value(shop.run()) == 2
    assert shop.run().executed == 0
    shop.edit("pipeline.py", "x + 1", "x + 9")
    assert shop.value(shop.run()) == 10
    shop.edit("lib.py", "fn(x)", "fn(x) + 100")
    assert shop.value(shop.run()) == 110


def test_a_function_made_a_step_elsewhere(shop):
    shop.write(
        pipeline="from falaj import pipeline, step\nfrom lib import f\ns = step(f)\n"
        "@pipeline\ndef main() -> int:\n    return s(1)\n",
        lib="def f(x: int) -> int:\n    return x + 1\n",
    )
    assert shop.value(shop.run()) == 2
    shop.edit("lib.py", "+ 1", "+ 9")
    assert shop.value(shop.run()) == 10


def test_a_new_package_that_shadows_a_module_reruns(shop):
    shop.write({"pipeline.py": pipe("from lib import f"), "lib.py": "def f(x): return x + 1"})
    assert shop.value(shop.run()) == 2
    shop.write({"lib/__init__.py": "def f(x): return x + 9"})
    assert shop.value(shop.run()) == 10


def test_a_computed_import_reruns_by_what_was_loaded(shop):
    shop.write(
        {
            "pipeline.py": pipe("import importlib", "importlib.import_module('l' + 'ib').f(x)"),
            "lib.py": "def f(x): return x + 1",
        }
    )
    assert shop.value(shop.run()) == 2
    assert shop.states(shop.run()) == {"s": "cached"}
    shop.edit("lib.py", "+ 1", "+ 9")
    assert shop.value(shop.run()) == 10


HITS = {  # name -> the file that changes, from, to
    "comment": ("lib.py", "# one", "# two, longer"),
    "layout": ("lib.py", "def f(x): return x + 1", "def f(x):\n\n    return (x + 1)"),
    "unrelated file": ("other.py", "5", "6"),
    "sibling step": ("pipeline.py", "x * 5", "x * 6"),
    "new sibling step": (
        "pipeline.py",
        "# end",
        "@step\ndef extra(x: int) -> int:\n    return x\n",
    ),
    "the pipeline's own body": ("pipeline.py", "return s(1)", "y = s(1)\n    return y"),
    "a main block": ("pipeline.py", "# end", "if __name__ == '__main__':\n    print(main())"),
}


@pytest.mark.parametrize(("name", "old", "new"), HITS.values(), ids=HITS)
def test_a_change_elsewhere_hits(shop, name, old, new):
    shop.write(
        pipeline=pipe("from lib import f")
        + "\n@step\ndef other(x: int) -> int:\n    return x * 5\n\n# end\n",
        lib="# one\ndef f(x): return x + 1\n",
        other="def g(): return 5\n",
    )
    shop.run()
    shop.edit(name, old, new)
    assert shop.states(shop.run()) == {"s": "cached"}


SIBLING = """
from falaj import pipeline, step
{top}

@step
def a(x: int) -> int:
    {a}

{decorated}
def b(x: int) -> int:
    return x + 1

{end}

@pipeline
def main() -> int:
    return a(b(1))
"""


def two(top="", a="return x", decorated="@step", end=""):
    return SIBLING.format(top=top, a=a, decorated=decorated, end=end)


# name -> file, does step `a` run again when the body of step `b` changes
SIBLINGS = {
    "a sibling's body": (two(), False),
    "step under another name": (two("from falaj import step as s2", decorated="@s2"), False),
    "step as an attribute": (two("import falaj", decorated="@falaj.step"), False),
    "step with options": (two(decorated="@step(version=2, retries=0)"), False),
    "a parameter of the same name": (two(a="b = x\n    return b"), True),
    "named in a docstring's sentence": (two(a="'see b for more'\n    return x"), False),
    "an __all__": (two("__all__ = ['a', 'b']"), False),
    "called directly": (two(a="return b(x)"), True),
    "called through a helper": (two("def h(x): return b(x)", a="return h(x)"), True),
    "in a list": (two(a="return x", end="ALL = [b]"), True),
    "by string": (two("import pipeline", a="return getattr(pipeline, 'b')(x)"), True),
    "by a computed string": (
        two("import pipeline", a="return getattr(pipeline, 'B'.lower())(x)"),
        True,
    ),
    "through globals": (two(a="return globals()['B'.lower()](x)"), True),
    "through eval": (two(a="return eval('B'.lower() + '(x)')"), True),
    "a second decorator": (two("def d(f): return f", decorated="@step\n@d"), True),
    "a decorator that is not ours": (two("def mine(f): return f", decorated="@mine"), True),
    "the same name twice": (two(end="def b(x): return x"), True),
    "a name that is bound again": (two(end="b = b"), True),
    "step bound again": (two("step = step", decorated="@step"), True),
    "a star import beside it": (two("from lib import *"), True),
    "a builtin that is shadowed": (
        two(a="return len(x)").replace("def b(", "def len(").replace("a(b(1))", "a(len(1))"),
        True,
    ),
}


@pytest.mark.parametrize(("text", "reruns"), SIBLINGS.values(), ids=SIBLINGS)
def test_siblings_count_only_when_they_are_named(tmp_path, text, reruns):
    path = tmp_path / "pipeline.py"
    (tmp_path / "lib.py").write_text("K = 1\n")
    path.write_text(text)
    before = Scanner([tmp_path], base=tmp_path).closure(path, "a")
    path.write_text(text.replace("return x + 1", "return x + 2"))
    after = Scanner([tmp_path], base=tmp_path).closure(path, "a")
    assert (before.files != after.files) == reruns


def test_a_siblings_imports_count_only_with_its_body(tmp_path):
    (tmp_path / "lib.py").write_text("K = 1\n")
    text = two(a="return x").replace("return x + 1", "from lib import K\n    return x + K")
    (tmp_path / "pipeline.py").write_text(text)
    scanner = Scanner([tmp_path], base=tmp_path)
    assert list(scanner.closure(tmp_path / "pipeline.py", "a").files) == ["pipeline.py"]
    assert list(scanner.closure(tmp_path / "pipeline.py", "b").files) == ["lib.py", "pipeline.py"]


def test_a_siblings_default_that_calls_something_counts(tmp_path):
    path = tmp_path / "pipeline.py"
    text = two().replace("def b(x: int)", "def b(x: int = int('1'))")
    path.write_text(text)
    before = Scanner([tmp_path], base=tmp_path).closure(path, "a")
    path.write_text(text.replace("int('1')", "int('2')"))
    assert Scanner([tmp_path], base=tmp_path).closure(path, "a").files != before.files


def test_the_memo_gives_the_same_closure(shop):
    shop.write(pipeline=pipe("from lib import f"), lib="def f(x): return x + 1\n")
    path = shop.root / "pipeline.py"

    def closure():
        return Scanner([shop.root], base=shop.root, memo=shop.cache).closure(path, "s")

    assert closure() == closure() == Scanner([shop.root], base=shop.root).closure(path, "s")


def test_a_broken_file_in_reach_counts_by_its_bytes(tmp_path):
    (tmp_path / "pipeline.py").write_text(pipe("import lib", "x"))
    (tmp_path / "lib.py").write_text("print 'python 2'\n")
    found = Scanner([tmp_path], base=tmp_path).closure(tmp_path / "pipeline.py", "s")
    assert list(found.files) == ["lib.py", "pipeline.py"]
