"""Callers: ask about real flights over HTTP, and tell the server what happened.

python callers.py [--seconds 20] [--month 4]
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from prepare import FEATURES

from falaj.links.files.blobs import FileBlobs

CALLERS = 8
PAUSE_S = 0.005


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=20)
    words.add_argument("--month", type=int, default=4, help="of 2013, as it came to the airports")
    asked = words.parse_args()
    url = said("status")["environments"][0]["servers"][0]["url"]
    answered: Counter[str] = Counter()
    queue = iter(flights(asked.month).rows(named=True))
    end = time.monotonic() + asked.seconds
    crew = [threading.Thread(target=call, args=(url, queue, end, answered)) for _ in range(CALLERS)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    names = {release["id"]: release["version"] for release in said("release", "list")}
    for release, count in sorted(answered.items()):
        print(f"{names[release]} answered {count:,} times")


def flights(month: int) -> pl.DataFrame:
    """What the project's own pipeline makes of that month; flights that arrived."""
    run = said("run", "pipeline:live", "-p", f"month_from={month}", "-p", f"month_to={month}")
    table = FileBlobs(Path(".falaj/blobs")).get(run["result"]["digest"])
    return pl.read_parquet(table).filter(pl.col("y").is_not_null()).fill_nan(None)


def call(url: str, queue: Iterator[dict], end: float, answered: Counter[str]) -> None:
    """One caller: a flight after the other; the truth of fifty at once."""
    server = http.client.HTTPConnection(url.removeprefix("http://"))
    truth = []
    for flight in queue:
        if time.monotonic() > end:
            break
        answer = post(server, "/predict", {"rows": [{name: flight[name] for name in FEATURES}]})
        answered[answer["falaj-release"]] += 1
        truth.append({"request": answer["falaj-request"], "row": 0, "value": flight["y"]})
        if len(truth) == 50:
            post(server, "/ground-truth/flight-delay", {"rows": truth})
            truth.clear()
        time.sleep(PAUSE_S)


def post(server: http.client.HTTPConnection, path: str, body: object) -> http.client.HTTPMessage:
    server.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = server.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{answer.status}: {text.decode()}")
    return answer.headers


def said(*words: str):
    """The document that a command prints with --json."""
    done = subprocess.run(["falaj", *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["data"]


if __name__ == "__main__":
    main()
