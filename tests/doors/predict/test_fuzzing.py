"""Strange bytes at every parser of the data plane. FALAJ_FUZZ=1000000 runs that many in all."""

from __future__ import annotations

import os

import fuzzing
import pytest

TOTAL = int(os.environ.get("FALAJ_FUZZ", "0"))
EACH = TOTAL // len(fuzzing.TARGETS) + 1 if TOTAL else 700


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_strange_bytes_get_an_answer_or_a_refusal_in_words(name):
    fuzzing.run(name, min(EACH, 300), 0)  # what is loaded on first use is not counted below
    before = fuzzing.memory_mb()
    for seed in range(1, EACH // 10_000 + 2):
        fuzzing.run(name, min(EACH, 10_000), seed)
    assert fuzzing.memory_mb() - before < 64
