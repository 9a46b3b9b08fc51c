"""The page a person sees: which release, since when, which gates, is it healthy, how to ask it.

No script, no form, nothing from elsewhere. `esc` is the only way text gets in.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from falaj.base.digests import short
from falaj.doors.predict.staging import Live
from falaj.doors.predict.state import State

__all__ = ["esc", "page"]

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2430;background:#fff}h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}"
    "dt{color:#55606e}dd{margin:0 0 .5rem}code,pre{font:14px/1.45 ui-monospace,monospace}"
    "pre{background:#f3f5f8;padding:.8rem;overflow:auto}table{border-collapse:collapse}"
    "th,td{text-align:start;padding:.2rem 1.2rem .2rem 0;border-bottom:1px solid #dde2e8}"
    ".bad{color:#a3140b}@media(prefers-color-scheme:dark){body{background:#12161c;color:#e4e8ee}"
    "pre{background:#1c222b}dt{color:#9aa5b3}th,td{border-color:#303844}.bad{color:#ff8d85}}"
)
EXAMPLE: Final = {"INT": 1, "UINT": 1, "BOOL": True, "BYTES": "text"}


def esc(value: object) -> str:
    """Text for HTML, in elements and quoted attributes."""
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


def page(desk: State) -> bytes:
    current = desk.current
    problem = desk.trouble
    state = "answers requests" if desk.ready else "does not take requests"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{esc(desk.summary() or 'Falaj')}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>This server {esc(state)}</h1>",
    ]
    if problem:
        parts.append(f'<p class="bad" role="alert">{esc(problem)}</p>')
    if current is not None:
        parts.append(
            f"<p>Environment <b>{esc(current.plan.environment)}</b>, zone {esc(current.plan.zone)},"
            f" plan {current.plan.seq}, server {esc(desk.name or desk.ids.boot)}.</p>"
        )
        parts.extend(
            _model(live, only=len(current.models) == 1) for live in current.models.values()
        )
    parts.append(
        '<p><a href="/v2/health/ready">Health</a> · <a href="/metrics">Metrics</a> · '
        '<a href="/v2">Open Inference Protocol</a></p></main></body></html>'
    )
    return "".join(parts).encode()


def _model(live: Live, *, only: bool) -> str:
    manifest = live.stable.manifest
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(live.since))
    gates = sorted(
        name.removeprefix("evidence/").removesuffix(".dsse.json")
        for name in manifest.files
        if name.startswith("evidence/")
    )
    rows = [
        ("Release", f"{manifest.version} · {short(live.stable.release)}"),
        ("Live here since", since),
        ("Signed statements, verified", ", ".join(gates) or "none"),
        ("Task", manifest.task),
        ("Code", manifest.code.commit[:12] or "unknown"),
    ]
    if live.plan.canary is not None:
        version = live.canary.manifest.version if live.canary else "not loaded"
        share = f"{live.plan.canary.weight_bp / 100:g} % of the requests"
        rows.append(("Canary", f"{version} · {short(live.plan.canary.release)} · {share}"))
    told = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in rows)
    address = "/predict" if only else f"/predict?model={live.name}"
    example = msgspec.json.encode({"rows": [_example(live)]}).decode()
    command = f"curl -H 'content-type: application/json' 'http://ADDRESS{address}' -d '{example}'"
    columns = "".join(
        f"<tr><td>{esc(column.name)}</td><td>{esc(tensor.datatype)}</td>"
        f"<td>{esc(column.unit)}</td><td>{'yes' if column.nullable else 'no'}</td></tr>"
        for tensor in manifest.schema.inputs
        for column in tensor.columns
    )
    table = (
        "<table><thead><tr><th>Column</th><th>Type</th><th>Unit</th><th>May be null</th></tr>"
        f"</thead><tbody>{columns}</tbody></table>"
        if columns
        else ""
    )
    return (
        f"<h2>{esc(live.name)}</h2><dl>{told}</dl><h3>Ask it</h3>"
        f"<pre><code>{esc(command)}</code></pre>{table}"
    )


def _example(live: Live) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for tensor in live.stable.manifest.schema.inputs:
        kind = tensor.datatype.value.rstrip("0123456789")
        for column in tensor.columns:
            low = column.minimum if column.minimum is not None else 0.0
            row[column.name] = EXAMPLE.get(kind, max(low, 0.0))
        if not tensor.columns:
            row[tensor.name] = EXAMPLE.get(kind, 0.0)
    return row
