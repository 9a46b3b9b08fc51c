"""Changes of code that a cache has to see, and changes that it should forgive."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import heard
from bench.pipelines_tools import Chain, Tool, module_file, steps_file

ADDS = "def f(x): return x + 1\n"
USES = "return f(x)"
BEFORE, AFTER = "2", "10"  # of x = 1


@dataclass(frozen=True)
class Case:
    """The first step answers x + 1 by way of `lib.py`; then `old` in `file` becomes `new`.

    forgives: the change changes nothing, so the step should not run again.
    """

    name: str
    imports: str
    body: str
    lib: str
    old: str = "+ 1"
    new: str = "+ 9"
    file: str = "lib.py"
    forgives: bool = False
    more: dict[str, str] = field(default_factory=dict)

    def chain(self) -> Chain:
        # The name keeps what one case left in a shared store from answering another one.
        first = f"ran('s0')\ncase = {self.name!r}\n{self.body}"
        return Chain(
            bodies=(first, "ran('s1')\nreturn x + 0"),
            imports=f"from helpers import ran\n{self.imports}\n",
            files={"lib.py": self.lib, "other.py": "A = 1\n", **self.more},
        )


CASES = (
    Case("`from lib import f`", "from lib import f", USES, ADDS),
    Case(
        "two calls deep",
        "from lib import f",
        USES,
        "def g(x): return x + 1\ndef f(x): return g(x)\n",
    ),
    Case("`lib.f`", "import lib", "return lib.f(x)", ADDS),
    Case(
        "`mid.f` that calls `lib.f`",
        "import mid",
        "return mid.f(x)",
        ADDS,
        more={"mid.py": "import lib\n\n\ndef f(x):\n    return lib.f(x)\n"},
    ),
    Case("import inside the body", "", "from lib import f\nreturn f(x)", ADDS),
    Case(
        "method of a base class elsewhere",
        "from lib import A\n\n\nclass B(A):\n    pass\n",
        "return B().f(x)",
        "class A:\n    def f(self, x): return x + 1\n",
    ),
    Case(
        "function in a registry",
        "from lib import R",
        "return R['f'](x)",
        "def f(x): return x + 1\nR = {'f': f}\n",
    ),
    Case(
        "argument of a partial",
        "from lib import p",
        "return p(x)",
        "import functools\ndef f(k, x): return x + k\np = functools.partial(f, 1)\n",
        "f, 1",
        "f, 9",
    ),
    Case(
        "body under a `wraps` decorator",
        "from lib import f",
        USES,
        "import functools\ndef d(fn):\n    @functools.wraps(fn)\n    def w(*a): return fn(*a)\n"
        "    return w\n@d\ndef f(x): return x + 1\n",
    ),
    Case(
        "method of a module's instance",
        "from lib import o",
        "return o.f(x)",
        "class A:\n    def f(self, x): return x + 1\no = A()\n",
    ),
    Case(
        "module constant through a helper",
        "from lib import f",
        USES,
        "K = 1\ndef g(x): return x + K\ndef f(x): return g(x)\n",
        "K = 1",
        "K = 9",
    ),
    Case("nothing at all", "from lib import f", USES, ADDS, "+ 1", "+ 1", forgives=True),
    Case("a comment", "from lib import f", USES, f"# one\n{ADDS}", "one", "two", forgives=True),
    Case(
        "layout",
        "from lib import f",
        USES,
        ADDS,
        ADDS,
        "def f(\n    x\n):\n    return x + 1\n",
        forgives=True,
    ),
    Case(
        "a file that nothing imports", "from lib import f", USES, ADDS, "1", "2", "other.py", True
    ),
    Case(
        "the body of the next step",
        "from lib import f",
        USES,
        ADDS,
        "return x + 0",
        "return x + 0 + 0",
        "",
        True,
    ),
)


def outcome(tool: Tool, case: Case, folder: Path, home: Path) -> str:
    """`right`, `stale`, `hits`, `reruns`, or how it failed."""
    try:
        tool.project(folder, home, case.chain())
    except RuntimeError as error:
        return f"failed: {str(error).splitlines()[0][:60]}"
    answer, _, code = _run(tool, folder, home)
    if (answer, code) != (BEFORE, 0):
        return f"failed: {answer}, exit {code}, before any change"
    path = module_file(folder, case.file) if case.file else steps_file(folder)
    text = path.read_text()
    assert case.old in text, f"{path} does not hold {case.old!r}"
    path.write_text(text.replace(case.old, case.new))
    # Python itself takes compiled code of a file of the same second and size for the same.
    later = time.time() + 5
    os.utime(path, (later, later))
    answer, ran, code = _run(tool, folder, home)
    if code:
        return f"failed: exit {code}"
    if case.forgives:
        return "reruns" if "s0" in ran else "hits"
    return {AFTER: "right", BEFORE: "**stale**"}.get(answer, f"failed: {answer}")


def _run(tool: Tool, folder: Path, home: Path) -> tuple[str, list[str], int]:
    trace = folder.parent / "trace"
    trace.write_text("")
    if tool.before is not None:
        tool.before(folder, 1)
    environment = {**tool.environment(home), "TRACE": str(trace)}
    _, code, said = heard(tool.command(folder, 1), at=folder, env=environment)
    answer = tool.result(folder, said) if code == 0 else said[-200:]
    return answer, trace.read_text().split(), code
