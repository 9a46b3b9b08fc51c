"""The page a person sees: which release, since when, which gates, is it healthy, how to ask it.

No script, nothing from elsewhere; the form asks this server alone. `esc` is the only way text gets in.
"""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import msgspec

from falaj.base.digests import short
from falaj.doors.predict.staging import Live
from falaj.doors.predict.state import State
from falaj.facts.models import Column, Datatype, Tensor
from falaj.serving.loading import Loaded, Outputs
from falaj.serving.refusals import Finding, Refusal
from falaj.serving.schema import Reader
from falaj.serving.wire.instances import cell_of
from falaj.serving.wire.v2 import Call, no_binary

__all__ = ["HEADERS", "KIND", "answer_page", "decode_form", "esc", "page", "refusal_page"]

KIND: Final = b"text/html; charset=utf-8"
HEADERS: Final = (
    b"content-security-policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    b"base-uri 'none'; frame-ancestors 'none'\r\nx-content-type-options: nosniff\r\n"
    b"referrer-policy: same-origin\r\n"
)

STYLE: Final = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2430;background:#fff}h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}"
    "dt{color:#55606e}dd{margin:0 0 .5rem}code,pre{font:14px/1.45 ui-monospace,monospace}"
    "pre{background:#f3f5f8;padding:.8rem;overflow:auto}table{border-collapse:collapse}"
    "th,td{text-align:start;padding:.2rem 1.2rem .2rem 0;border-bottom:1px solid #dde2e8}"
    "form{display:grid;gap:.6rem;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr))}"
    "label{display:grid;gap:.15rem}label small{color:#55606e}"
    "input{font:inherit;padding:.35rem .5rem;border:1px solid #8a94a1;border-radius:4px;"
    "background:#fff;color:inherit;min-width:0}button{font:inherit;padding:.45rem 1rem;border:0;"
    "border-radius:4px;background:#0b5563;color:#fff;justify-self:start;align-self:end}"
    ":focus-visible{outline:3px solid #e39a2d;outline-offset:1px}.wide{overflow-x:auto}"
    ".bad{color:#a3140b}@media(prefers-color-scheme:dark){body{background:#12161c;color:#e4e8ee}"
    "pre{background:#1c222b}dt{color:#9aa5b3}th,td{border-color:#303844}.bad{color:#ff8d85}"
    "input{background:#1c222b;border-color:#6b7684}label small{color:#9aa5b3}"
    "button{background:#7fd0df;color:#10242a}}"
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
    parts = [f"<h1>This server {esc(state)}</h1>"]
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
        '<a href="/v2">Open Inference Protocol</a> · <a href="/openapi.json">OpenAPI</a></p>'
    )
    return _whole(desk.summary() or "Falaj", parts)


def _whole(title: str, parts: list[str]) -> bytes:
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{esc(title)}</title><style>{STYLE}</style></head><body><main>"
    )
    return "".join((head, *parts, "</main></body></html>")).encode()


def decode_form(reader: Reader, body: bytes, json_size: int = -1) -> Call:
    """Read one row from the fields of the page's form. Raises Refusal."""
    no_binary(json_size)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=2000)
    except ValueError:
        raise Refusal(Finding("serving.body", "body: no fields of a form")) from None
    kinds = {name: (tensor.datatype, column) for name, tensor, column in _cells(reader)}
    row: dict[str, Any] = {}
    for name, text in fields:
        datatype, column = kinds.get(name, (Datatype.BYTES, None))
        value = cell_of(datatype, text.strip() if datatype is not Datatype.BYTES else text)
        if value is not None or (column is not None and column.nullable):
            row[name] = value
    call = Call(rows=reader.rows([row]))
    call.head = b"content-type: " + KIND + b"\r\n" + HEADERS
    return call


def answer_page(engine: Loaded, call: Call, outputs: Outputs, request: str) -> bytes:
    """Answer to the page's form, as a page."""
    del call
    told = []
    for at, tensor in enumerate(engine.outputs):
        values = outputs.array(at).ravel().tolist()
        text = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:50])
        told.append((tensor.name, text))
    told += [("Release", f"{engine.manifest.version} · {engine.release}"), ("Request", request)]
    lines = "".join(f"<dt>{esc(name)}</dt><dd>{esc(text)}</dd>" for name, text in told)
    title = f"Answer of {engine.manifest.model}"
    return _whole(title, [f"<h1>{esc(title)}</h1><dl>{lines}</dl>", BACK])


def refusal_page(model: str, refusal: Refusal) -> bytes:
    """What is wrong with the fields of the form."""
    found = "".join(f"<li>{esc(finding.message)}</li>" for finding in refusal.findings)
    title = f"{model} cannot answer this"
    return _whole(title, [f'<h1>{esc(title)}</h1><ul class="bad" role="alert">{found}</ul>', BACK])


BACK: Final = '<p><a href="/">Back</a></p>'


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
        f"<tr><td>{esc(name)}</td><td>{esc(tensor.datatype)}</td>"
        f"<td>{esc(column.unit if column else '')}</td><td>{esc(_range(column))}</td>"
        f"<td>{'yes' if column and column.nullable else 'no'}</td></tr>"
        for name, tensor, column in _cells(live.stable.reader)
    )
    table = (
        '<div class="wide"><table><thead><tr><th>Column</th><th>Type</th><th>Unit</th>'
        f"<th>Range</th><th>May be null</th></tr></thead><tbody>{columns}</tbody></table></div>"
    )
    return (
        f"<h2>{esc(live.name)}</h2><dl>{told}</dl><h3>Ask it</h3>{_form(live)}"
        f"<pre><code>{esc(command)}</code></pre>{table}"
    )


def _form(live: Live) -> str:
    """Fields for one row, with an example in them; only where a cell is one value."""
    reader = live.stable.reader
    if any(not t.columns and t.shape[1:] not in ((), (1,)) for t in reader.schema.inputs):
        return ""
    example = _example(live)
    fields = []
    for name, tensor, column in _cells(reader):
        about = " · ".join(filter(None, (column.unit if column else "", _range(column))))
        number = tensor.datatype is not Datatype.BYTES and tensor.datatype is not Datatype.BOOL
        mode = ' inputmode="decimal"' if number else ""
        must = "" if (column and column.nullable) or not number else " required"
        fields.append(
            f"<label>{esc(name)}<small>{esc(about or tensor.datatype)}</small>"
            f'<input name="{esc(name)}" value="{esc(_plain(example[name]))}"{mode}{must}'
            ' autocomplete="off"></label>'
        )
    return (
        f'<form method="post" action="/try/{esc(quote(live.name))}">{"".join(fields)}'
        "<button>Ask</button></form>"
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _range(column: Column | None) -> str:
    if column is None or (column.minimum is None and column.maximum is None):
        return ""
    if column.maximum is None:
        return f"at least {column.minimum:g}"
    if column.minimum is None:
        return f"at most {column.maximum:g}"
    return f"{column.minimum:g} to {column.maximum:g}"


def _cells(reader: Reader) -> list[tuple[str, Tensor, Column | None]]:
    """Name, input and column of each cell of a row."""
    found: list[tuple[str, Tensor, Column | None]] = []
    for tensor in reader.schema.inputs:
        found.extend((column.name, tensor, column) for column in tensor.columns)
        if not tensor.columns:
            found.append((tensor.name, tensor, None))
    return found


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
