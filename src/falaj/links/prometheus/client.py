"""ports/measures.py on the HTTP API of Prometheus (`/api/v1/query`), version 1 as documented."""

from __future__ import annotations

import http.client
import json
import math
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from falaj.ports.measures import NoMeasure

__all__ = ["Prometheus"]

WAIT_S: Final = 2.0
MOST_BYTES: Final = 1 << 20


class Prometheus:
    """Asks by POST, as the API allows, so that a long query fits. Follows no redirect."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def value(self, query: str, at: datetime) -> float | None:
        return summed(self._ask(query, at))

    def _ask(self, query: str, at: datetime) -> dict[str, Any]:
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        wire = kind(self._url.hostname or "", self._url.port, timeout=WAIT_S)
        body = urlencode({"query": query, "time": f"{at.timestamp():.3f}", "timeout": "2s"})
        head = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            wire.request("POST", f"{self._url.path.rstrip('/')}/api/v1/query", body, head)
            answer = wire.getresponse()
            text = answer.read(MOST_BYTES)
            told = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NoMeasure(f"{self._url.netloc}: {type(error).__name__}: {error}") from None
        finally:
            wire.close()
        if not isinstance(told, dict) or told.get("status") != "success":
            why = told.get("error", "") if isinstance(told, dict) else ""
            raise NoMeasure(f"{self._url.netloc} answered {answer.status}: {str(why)[:300]}")
        data = told.get("data")
        if not isinstance(data, dict):
            raise NoMeasure(f"{self._url.netloc}: an answer without data")
        return data


def summed(data: dict[str, Any]) -> float | None:
    """Vector: the sum of its samples. Scalar: itself. Anything else is no number."""
    try:
        if data["resultType"] == "scalar":
            found = [float(data["result"][1])]
        elif data["resultType"] == "vector":
            found = [float(one["value"][1]) for one in data["result"]]
        else:
            raise NoMeasure(f"the query gives a {data['resultType']}, expected a vector or scalar")
    except (KeyError, IndexError, TypeError, ValueError):
        raise NoMeasure("the answer is not of the documented form") from None
    if not all(math.isfinite(one) for one in found):
        raise NoMeasure("the query gives no number")
    return sum(found) if found else None
