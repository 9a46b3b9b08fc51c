"""What every prober promises; run here over the one on this machine, with real servers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from servers import House

from falaj.base.errors import FalajError
from falaj.links.local.probe import LocalProber

ROWS = np.array([[30, 733, 14], [np.nan, 1000, 9]], np.float32)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def prober():
    return LocalProber()


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = children()
    yield
    assert children() <= before


def children() -> set[int]:
    words = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    return {int(word) for word in words.split()}


def test_each_answer_of_the_served_release_is_timed(house, prober):
    # This model calls its one input x, so the name comes from the served release.
    made = house.release("1")
    found = prober.time_answers(made.folder, house.trust, "delay", ROWS, 150)
    assert found.us.shape == (150,)
    assert found.us.dtype == np.int64
    assert (found.us > 0).all()


def test_the_memory_of_the_server_is_told_not_that_of_who_asks(house, prober):
    ballast = np.ones(60_000_000)  # 480 MB here must not show there
    found = prober.time_answers(house.release("1").folder, house.trust, "delay", ROWS, 50)
    del ballast
    assert 10 < found.ready_mb <= found.peak_mb < 400


def test_files_of_the_working_folder_are_not_the_server_s_modules(
    house, prober, tmp_path, monkeypatch
):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')\n")
    monkeypatch.chdir(tmp_path)
    made = house.release("1")
    assert len(prober.time_answers(made.folder, house.trust, "delay", ROWS, 10).us) == 10


def no_signature(house):
    return house.release("1", sign=False).folder, house.trust, "delay", ROWS


def foreign_keys(house):
    (house.base / "other").mkdir()
    other = House(house.base / "other")
    return house.release("1").folder, other.trust, "delay", ROWS


def changed_bytes(house):
    folder = house.release("1").folder
    with (folder / "model" / "model.onnx").open("ab") as file:
        file.write(b"x")
    return folder, house.trust, "delay", ROWS


def no_release(house):
    return house.base / "nowhere", house.trust, "delay", ROWS


def another_model(house):
    return house.release("1").folder, house.trust, "other", ROWS


def too_few_columns(house):
    return house.release("1").folder, house.trust, "delay", ROWS[:, :2]


def no_rows(house):
    return house.release("1").folder, house.trust, "delay", ROWS[:0]


REFUSED = {  # what is wrong -> a word of the reason
    no_signature: "signature",
    foreign_keys: "sign",
    changed_bytes: "model.onnx",
    no_release: "release.json",
    another_model: "other",
    too_few_columns: "shape",
    no_rows: "empty",
}


@pytest.mark.parametrize(
    ("wrong", "word"), REFUSED.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_what_cannot_be_served_is_refused_with_the_server_s_own_words(house, prober, wrong, word):
    folder, trust, model, rows = wrong(house)
    with pytest.raises(FalajError) as caught:
        prober.time_answers(folder, trust, model, rows, 100)
    assert caught.value.code == "target.probe-failed"
    assert word in caught.value.problems[0].why


def test_a_server_that_dies_is_told_as_such(house, prober):
    made, mine = house.release("1"), threading.get_native_id()

    def kill_the_server() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            words = Path(f"/proc/self/task/{mine}/children").read_text().split()
            born = [int(word) for word in words if int(word) not in before]
            if born:
                time.sleep(2)  # by then it answers
                os.kill(born[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    before = children()
    killer = threading.Thread(target=kill_the_server)
    killer.start()
    with pytest.raises(FalajError) as caught:
        prober.time_answers(made.folder, house.trust, "delay", ROWS, 1_000_000)
    killer.join()
    assert caught.value.code == "target.probe-failed"
