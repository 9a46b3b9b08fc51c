#!/usr/bin/env python3
"""As much of curl as the README uses: -s, -d, -H, --retry N, --retry-delay N, --retry-connrefused."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.error
import urllib.request


def main() -> int:
    words = argparse.ArgumentParser(allow_abbrev=False)
    words.add_argument("address")
    words.add_argument("-s", action="store_true")
    words.add_argument("-d", dest="body")
    words.add_argument("-H", dest="headers", action="append", default=[])
    words.add_argument("--retry", type=int, default=0)
    words.add_argument("--retry-delay", type=float, default=1)
    words.add_argument("--retry-connrefused", action="store_true")
    asked = words.parse_args()
    address = asked.address if "://" in asked.address else f"http://{asked.address}"
    headers = dict(line.split(": ", 1) for line in asked.headers)
    body = asked.body.encode() if asked.body is not None else None
    nearby = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in range(asked.retry + 1):
        try:
            with nearby.open(urllib.request.Request(address, body, headers)) as answer:
                sys.stdout.buffer.write(answer.read())
        except urllib.error.HTTPError as error:
            sys.stdout.buffer.write(error.read())
        except urllib.error.URLError:
            if attempt < asked.retry:
                time.sleep(asked.retry_delay)
            continue
        return 0
    return 7


if __name__ == "__main__":
    raise SystemExit(main())
