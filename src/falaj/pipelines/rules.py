"""Why a step runs again, and whether it may be tried once more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from falaj.facts.runs import Ending

__all__ = ["Ending", "delay_s", "differences", "may_retry", "why_reruns"]

ORDER: Final = (
    *("project", "step", "version", "code", "reads", "env", "params", "inputs"),
    *("environment", "seed", "fresh"),
)


def may_retry(ending: Ending, *, attempt: int, retries: int, listed: bool) -> bool:
    """Whether another attempt follows attempt number `attempt` (from 1).

    1. Never more than `retries` beyond the first.
    2. An answer of the wrong type is wrong again.
    3. What is listed in retry_on may be tried again, also a timeout.
    4. Else only what was lost: the step itself did nothing wrong.
    """
    if attempt > retries or ending in (Ending.BAD_ANSWER, Ending.DONE):
        return False
    return listed or ending is Ending.LOST


def delay_s(attempt: int, *, jitter: float) -> float:
    """Seconds before attempt `attempt + 1`. jitter: drawn by the caller from [0, 1)."""
    return min(300.0, 2.0 * 2.0**attempt) * jitter


def why_reruns(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """The first part of the key that differs from the newest entry, in words.

    old, new: `parts` of the key, `definitions` and `parents` of the code.
    """
    if old is None:
        return "first run of this step"
    before, after = old["parts"], new["parts"]
    for part in ORDER:
        if before.get(part) != after.get(part):
            return _words(part, before.get(part), after.get(part), old, new)
    return "its entry was removed, or its bytes were altered"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every part that differs, in words, in the order that `why_reruns` looks at them.

    old, new: as for `why_reruns`.
    """
    before, after = old["parts"], new["parts"]
    found: list[str] = []
    for part in ORDER:
        was, now = before.get(part), after.get(part)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            names = dict.fromkeys([*was, *now])
            for name in names:
                one, other = _only(was, name), _only(now, name)
                if one != other:
                    found.append(_words(part, one, other, old, new))
        else:
            found.append(_words(part, was, now, old, new))
    return found


def _only(whole: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: whole[name]} if name in whole else {}


def _words(
    part: str, before: Any, after: Any, old: Mapping[str, Any], new: Mapping[str, Any]
) -> str:
    match part:
        case "code":
            return _code(before or {}, after or {}, old, new)
        case "version":
            return f"version {before} -> {after}"
        case "params":
            return _named("parameter", before or {}, after or {}, values=True)
        case "inputs":
            return _named("input", before or {}, after or {}, values=False)
        case "reads":
            return _named("file", before or {}, after or {}, values=False)
        case "env":
            return _named("variable", before or {}, after or {}, values=False)
        case "environment":
            return _named("environment:", before or {}, after or {}, values=False)
        case _:
            return f"{part} changed"


def _named(word: str, before: Mapping[str, Any], after: Mapping[str, Any], *, values: bool) -> str:
    for name in [*before, *(key for key in after if key not in before)]:
        if name not in after:
            return f"{word} {name} is gone"
        if name not in before:
            return f"{word} {name} is new"
        if before[name] != after[name]:
            told = f": {_told(before[name])} -> {_told(after[name])}" if values else " changed"
            return f"{word} {name}{told}"
    return f"{word} changed"


def _told(value: Any) -> str:
    """A canonical value for people."""
    if isinstance(value, dict) and len(value) == 1:
        (inner,) = value.values()
        value = [_told(item) for item in inner] if isinstance(inner, list) else inner
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _code(
    before: Mapping[str, str],
    after: Mapping[str, str],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> str:
    for path in [*after, *(key for key in before if key not in after)]:
        if path not in after:
            return f"{path} is no longer imported"
        if path not in before:
            return f"{path} is new{_chain(path, new)}"
        if before[path] != after[path]:
            labels = _labels(
                old.get("definitions", {}).get(path, {}), new.get("definitions", {}).get(path, {})
            )
            inside = f" ({labels})" if labels else ""
            return f"{path} changed{inside}{_chain(path, new)}"
    return "code changed"


def _labels(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _chain(path: str, new: Mapping[str, Any]) -> str:
    parents = new.get("parents", {})
    chain: list[str] = []
    at = parents.get(path)
    while at and at not in chain:
        chain.append(at)
        at = parents.get(at)
    return f", imported by {' -> '.join(reversed(chain))}" if chain else ""
