"""The description of the server: every address in it is there, and says what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from servers import House
from tensors import mirror

from falaj.facts.models import Datatype

ROUTES = Path(__file__).parents[3] / "src/falaj/doors/predict/routes.py"


def fits(value, schema, root):
    """The part of JSON Schema that the document uses."""
    if "$ref" in schema:
        schema = root["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type")
    if kinds is None:
        return "enum" not in schema or value in schema["enum"]
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}.get(
        type(value), "number" if value is not None else "null"
    )
    allowed = kinds if isinstance(kinds, list) else [kinds]
    if kind not in allowed and not (kind == "integer" and "number" in allowed):
        return False
    if kind == "object":
        known = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(v, known[k], root) for k, v in value.items() if k in known
        )
    if kind == "array":
        return all(fits(one, schema.get("items", {}), root) for one in value)
    return True


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("several"))
    one = made.release("1")
    schema, data = mirror(Datatype.INT16, Datatype.BYTES)
    two = made.release("1", onnx_bytes=data, schema=schema, model="pair", task="other")
    for release in (one, two):
        made.place(release)
    made.write(made.plan(one, more=made.plan(two, model="pair").models.items()))
    yield made.start()
    made.close()


def test_all_that_can_be_asked_without_a_body_answers_as_described(running, several):
    for client in (running, several):
        told = client.get("/openapi.json")[2]
        assert told["openapi"].startswith("3.1")
        asked = 0
        for path, item in told["paths"].items():
            if "get" not in item:
                continue
            status, headers, answer = client.get(path)
            described = item["get"]["responses"][str(status)]["content"]
            kind = headers["content-type"].partition(";")[0]
            assert kind in described, path
            if kind == "application/json":
                assert fits(answer, described[kind]["schema"], told), path
            asked += 1
        assert asked >= 9


BODIES = {
    "/predict": {"rows": [{"dep_delay": 1, "distance": 2, "hour": 3}]},
    "/invocations": {"dataframe_records": [{"distance": 2, "hour": 3}]},
    "/v1/models/delay:predict": {"instances": [{"dep_delay": None, "distance": 2, "hour": 3}]},
    "/v2/models/delay/infer": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]
    },
    "/ground-truth/delay": {"rows": []},
}


def test_every_body_has_its_description(running):
    told = running.get("/openapi.json")[2]
    assert {path for path, item in told["paths"].items() if "post" in item} == set(BODIES)
    for path, body in BODIES.items():
        post = told["paths"][path]["post"]
        given = post["requestBody"]["content"]["application/json"]["schema"]
        assert fits(body, given, told), path
        for sent in (body, {}):
            status, _, answer = running.post(path, sent)
            schema = post["responses"][str(status)]["content"]["application/json"]["schema"]
            assert fits(answer, schema, told), path


def test_the_columns_are_described_with_their_ranges(running):
    told = running.get("/openapi.json")[2]
    rows = told["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    row = rows["properties"]["rows"]["items"]
    assert row["required"] == ["distance", "hour"]
    assert row["additionalProperties"] is False
    assert row["properties"]["distance"] == {
        "type": "number",
        "minimum": 0.0,
        "maximum": 20000.0,
        "description": "mi",
    }
    assert row["properties"]["dep_delay"]["type"] == ["number", "null"]


def test_several_models_share_the_addresses_that_a_query_tells_apart(several):
    told = several.get("/openapi.json")[2]
    (query,) = told["paths"]["/predict"]["post"]["parameters"]
    assert query["schema"]["enum"] == ["delay", "pair"]
    row = told["paths"]["/v1/models/pair:predict"]["post"]["requestBody"]["content"]
    cells = row["application/json"]["schema"]["properties"]["instances"]["items"]["properties"]
    assert cells["x_int16"]["items"] == {"type": "integer", "minimum": -(2**15), "maximum": 2**15 - 1}  # fmt: skip
    assert cells["x_bytes"] == {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}  # fmt: skip


def test_no_address_is_forgotten(running):
    """Addresses of the code and of the document are the same, but for those of a version."""
    described = {path.replace("delay", "*") for path in running.get("/openapi.json")[2]["paths"]}
    found = set()
    tree = ast.parse(ROUTES.read_text())
    find = next(n for n in ast.walk(tree) if getattr(n, "name", "") == "find")
    for node in ast.walk(find):
        if isinstance(node, ast.MatchSequence):
            parts = [
                part.value.value if isinstance(part, ast.MatchValue) else "*"
                for part in node.patterns
            ]
            found.add(("/" + "/".join(parts)).rstrip("/") or "/")
    found = {path for path in found if "versions" not in path and "/try/" not in path}
    found -= {"/summaries"}  # of the admin's listener alone
    assert found - described == set()
