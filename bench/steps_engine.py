"""What the engine itself costs a step: a thousand steps in this process, cold and cached."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from falaj.links.files.blobs import FileBlobs
from falaj.links.frames.codecs import codecs
from falaj.links.python.environment import read_environment
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.service import run_pipeline

STEPS = 1000
CALLED = (
    "from falaj import pipeline, step\n\n\n@step\ndef s(x: int, k: int) -> int:\n    return x + k\n\n\n"
    "@pipeline\ndef main(x: int = 0) -> int:\n"
    + "".join(f"    x = s(x, {k})\n" for k in range(STEPS))
    + "    return x\n"
)
APART = (
    "from falaj import pipeline, step\n"
    + "".join(f"\n@step\ndef s{k}(x: int) -> int:\n    return x + {k}\n" for k in range(STEPS))
    + "\n@pipeline\ndef main(x: int = 0) -> int:\n"
    + "".join(f"    x = s{k}(x)\n" for k in range(STEPS))
    + "    return x\n"
)


def costs(text: str, times: int) -> dict[str, float]:
    """Least CPU of a step in milliseconds; the first run is not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "pipeline.py").write_text(text)
        blobs, cache = FileBlobs(root / "blobs"), FileStepCache(root / "cache.db")
        lock = read_environment(root)[0]

        def once(x: int) -> float:
            begun = time.process_time()
            done = run_pipeline(
                "pipeline:main", root=root, parameters={"x": x}, seed=0, datasets={},
                blobs=blobs, cache=cache, codecs=codecs(), lock=lock,
            )  # fmt: skip
            assert done.error is None
            return (time.process_time() - begun) * 1000 / STEPS

        once(0)
        found = [(once(x), once(x)) for x in range(1, times + 1)]
    cold, cached = (min(column) for column in zip(*found, strict=True))
    return {"cold": cold, "cached": cached}


if __name__ == "__main__":
    times = int(sys.argv[1])
    print(json.dumps({"called": costs(CALLED, times), "apart": costs(APART, times)}))
