"""The promises of ports/tester.py, over pytest in a process of its own."""

from __future__ import annotations

import sys

import pytest

from falaj.base.errors import FalajError
from falaj.links.pytest.runner import PytestRunner

TOML = '[project]\nname = "t"\nregion = "ae"\n'


@pytest.fixture
def house(tmp_path):
    def make(**files):
        (tmp_path / "falaj.toml").write_text(TOML)
        (tmp_path / "helper.py").write_text("NUMBER = 4\n")
        for name, text in files.items():
            path = tmp_path / "tests" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def run(root, *paths, keyword="", show_values=True, **more):
    return PytestRunner(**more).run(
        root, paths=paths, keyword=keyword, run="", show_values=show_values
    )


def told(found):
    return {test.name.rpartition("::")[2]: test.outcome for test in found.tests}


MANY = """
import pytest, helper

def test_good(): assert helper.NUMBER == 4
def test_bad(): assert helper.NUMBER == 5
@pytest.mark.parametrize("x", [1, 2])
def test_each(x): assert x < 2
@pytest.fixture
def broken(): raise RuntimeError("the fixture")
def test_setup(broken): pass
def test_left_out(): pytest.skip("no reason")
@pytest.mark.xfail
def test_known(): assert False
"""


def test_every_outcome_is_told(house):
    found = run(house(test_many=MANY))
    assert told(found) == {
        "test_good": "passed", "test_bad": "failed", "test_each[1]": "passed",
        "test_each[2]": "failed", "test_setup": "error", "test_left_out": "skipped",
        "test_known": "xfailed",
    }  # fmt: skip
    bad = next(t for t in found.tests if t.name.endswith("test_bad"))
    assert bad.message.startswith("assert 4 == 5") and "(test_many.py:5)" in bad.message
    assert found.version == pytest.__version__ and found.seconds > 0 and found.error == ""
    assert b"2 failed" in found.log or b"failed" in found.log


def test_nothing_is_left_behind(house):
    root = house(test_one="def test_a(): pass\n")
    before = sorted(root.rglob("*"))
    run(root)
    assert sorted(root.rglob("*")) == before


def test_no_tests(house):
    for found in (run(house()), run(house(test_empty="x = 1\n"))):
        assert found.tests == () and found.error == ""


def test_a_choice(house):
    root = house(test_many=MANY, test_more="def test_more(): pass\n")
    assert told(run(root, "tests/test_more.py")) == {"test_more": "passed"}
    assert told(run(root, keyword="good")) == {"test_good": "passed"}
    assert told(run(root, "tests/test_many.py::test_good")) == {"test_good": "passed"}


@pytest.mark.parametrize("path", ["none.py", "--collect-only", "-p", "tests/none.py::test_a"])
def test_what_is_no_path_is_refused(house, path):
    with pytest.raises(FalajError) as caught:
        run(house(test_many=MANY), path)
    assert caught.value.code == "testing.no-such-path"


def test_a_broken_conftest_in_pytests_own_words(house):
    root = house(conftest="import nowhere_to_be_found\n", test_one="def test_a(): pass\n")
    found = run(root)
    assert found.tests == ()
    assert "nowhere_to_be_found" in found.error and len(found.error.splitlines()) <= 20


def test_a_module_that_cannot_be_imported_is_an_error(house):
    root = house(test_broken="def test_(:\n", test_good="def test_good(): pass\n")
    found = run(root)
    assert [t.outcome for t in found.tests if "broken" in t.name] == ["error"]


def test_values_are_hidden_where_data_is_protected(house):
    text = "class Odd(Exception): pass\ndef test_a(): assert 'Aisha' == 'Omar'\ndef test_b(): raise Odd('Aisha')\ndef test_c():\n    import pytest\n    pytest.skip('Aisha')\n"
    found = run(house(test_rows=text), show_values=False)
    assert "Aisha" not in str(found.tests)
    assert "(test_rows.py:2)" in found.tests[0].message
    assert found.tests[1].message == "test_rows.Odd (test_rows.py:3)"


def test_the_settings_of_a_folder_above_are_not_asked(house, tmp_path):
    (tmp_path.parent / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    try:
        assert told(run(house(test_one="def test_a(): pass\n"))) == {"test_a": "passed"}
    finally:
        (tmp_path.parent / "pytest.ini").unlink()


def test_the_settings_of_the_project_are(house):
    root = house(check_one="def test_a(): pass\n")
    assert run(root).tests == ()
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npython_files = "check_*.py"\n')
    assert told(run(root)) == {"test_a": "passed"}


def test_without_pytest_it_is_refused_with_the_cure(house):
    with pytest.raises(FalajError) as caught:
        run(house(test_many=MANY), python=(sys.executable, "-I", "-S"))
    assert caught.value.code == "testing.pytest-missing"
    assert caught.value.problems[0].fix == "pip install 'falaj[test]'"


def test_a_test_that_ends_the_process(house):
    with pytest.raises(FalajError) as caught:
        run(house(test_end="import os\ndef test_a(): os._exit(7)\n"))
    assert caught.value.code == "testing.broken-off" and "7" in str(caught.value)


def test_a_test_that_never_ends(house):
    with pytest.raises(FalajError) as caught:
        run(house(test_long="import time\ndef test_a(): time.sleep(60)\n"), longest_s=2)
    assert caught.value.code == "testing.too-long"
