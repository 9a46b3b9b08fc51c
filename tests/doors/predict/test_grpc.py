"""gRPC: the same answers, names, counts and log as REST; limits, health, reflection."""

from __future__ import annotations

import socket
import threading
import time

import grpc
import msgspec
import numpy as np
import pytest
from rpc_client import RpcClient, infer_request, refused
from servers import Client, House, expected, infer_body
from tensors import mirror, sample

from falaj.facts.models import Datatype
from falaj.serving import spool
from falaj.serving.requests import which_release
from falaj.serving.wire.messages import protos

ROW = (30.0, 733.0, 14.0)
TYPES = [kind for kind in Datatype if kind is not Datatype.BF16]
TYPED = [kind for kind in TYPES if kind is not Datatype.FP16]
HEALTH = "grpc.health.v1.Health"


def x(*rows):
    return {"x": (Datatype.FP32, np.array(rows, np.float32))}


def started(house, *more):
    client = house.start("--grpc-port", "0", *more)
    client.rpc = RpcClient(house.started["grpc"])
    return client


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("grpc"))
    release = made.release("1")
    schema, data = mirror(*TYPES)
    other = made.release("1", onnx_bytes=data, schema=schema, model="all", task="other")
    schema, data = mirror(Datatype.INT32, Datatype.BYTES, shape=(-1, -1, 2))
    free = made.release("1", onnx_bytes=data, schema=schema, model="free", task="other")
    for one in (release, other, free):
        made.place(one)
    more = made.plan(other, model="all").models | made.plan(free, model="free").models
    made.write(made.plan(release, more=more.items()))
    client = started(made, "--grpc-reflection")
    client.house, client.release = made, release
    yield client
    client.rpc.close()
    client.close()
    made.close()


def test_server_and_model_metadata(served):
    rpc = served.rpc
    assert rpc.call("ServerLive").live
    assert rpc.call("ServerReady").ready
    told = rpc.call("ServerMetadata")
    rest = served.get("/v2")[2]
    assert (told.name, told.version, list(told.extensions)) == tuple(rest.values())
    assert rpc.call("ModelReady", name="delay", version="1").ready
    told = rpc.call("ModelMetadata", name="all")
    rest = served.get("/v2/models/all")[2]
    assert (told.name, list(told.versions), told.platform) == ("all", ["1"], rest["platform"])
    for side in ("inputs", "outputs"):
        assert [
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
            for one in getattr(told, side)
        ] == rest[side]


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_the_answer_has_the_form_of_the_request(served, raw):
    found = served.rpc.infer("delay", x(ROW, (1.0, 5.0, 6.0)), raw=raw, id="my-7")
    answer = served.rpc.answer
    assert (answer.model_name, answer.model_version, answer.id) == ("delay", "1", "my-7")
    assert bool(answer.raw_output_contents) == raw
    want = [expected(ROW), expected((1.0, 5.0, 6.0))]
    assert found["probabilities"][:, 1] == pytest.approx(want, abs=1e-6)
    assert served.rpc.trailing["falaj-release"] == served.release.id
    assert len(served.rpc.trailing["falaj-request"]) == 32


@pytest.mark.parametrize("n", [1, 64, 65, 3000])
def test_to_the_bit_what_rest_says(served, n):
    dice = np.random.default_rng(n)
    rows = dice.uniform(0, 24, (n, 3)).astype(np.float32)
    found = served.rpc.infer("delay", x(*rows))
    told = served.infer(*rows.tolist())[2]
    by_rest = np.array(told["outputs"][1]["data"], np.float32).reshape(-1, 2)
    assert np.array_equal(found["probabilities"], by_rest)


@pytest.mark.parametrize(("raw", "kinds"), [(True, TYPES), (False, TYPED)], ids=["raw", "typed"])
def test_every_type_goes_there_and_back(served, raw, kinds):
    arrays = {f"x_{k.lower()}": (k, sample(k, (3, 2))) for k in kinds}
    if not raw:
        # Of a model with half precision the answer is raw; FP16 itself cannot be sent otherwise.
        arrays["x_fp16"] = (Datatype.FP16, sample(Datatype.FP16, (3, 2)))
        code, words, _ = refused(lambda: ask_typed(served, arrays))
        assert (code, "raw contents only" in words) == ("INVALID_ARGUMENT", True)
        return
    found = served.rpc.infer("all", arrays, raw=raw)
    for kind in kinds:
        assert np.array_equal(found[f"y_{kind.lower()}"], arrays[f"x_{kind.lower()}"][1]), kind


def ask_typed(served, arrays):
    half = arrays.pop("x_fp16")
    request = infer_request("all", arrays, raw=False)
    request.inputs.add(name="x_fp16", datatype="FP16", shape=half[1].shape)
    return served.rpc.send("ModelInfer", request)


def test_typed_contents_of_every_type(house):
    schema, data = mirror(*TYPED)
    house.apply(house.release("1", onnx_bytes=data, schema=schema, task="other"))
    client = started(house)
    arrays = {f"x_{k.lower()}": (k, sample(k, (4, 2))) for k in TYPED}
    found = client.rpc.infer("delay", arrays, raw=False)
    assert not client.rpc.answer.raw_output_contents
    for kind in TYPED:
        got = found[f"y_{kind.lower()}"]
        assert got.tolist() == arrays[f"x_{kind.lower()}"][1].tolist(), kind


def test_axes_that_vary(served):
    for width in (1, 7):
        arrays = {
            "x_int32": (Datatype.INT32, sample(Datatype.INT32, (2, width, 2))),
            "x_bytes": (Datatype.BYTES, sample(Datatype.BYTES, (2, width, 2))),
        }
        for raw in (True, False):
            found = served.rpc.infer("free", arrays, raw=raw)
            assert found["y_bytes"].tolist() == arrays["x_bytes"][1].tolist()


def test_only_the_outputs_asked_for(served):
    assert list(served.rpc.infer("delay", x(ROW), outputs=["probabilities"])) == ["probabilities"]


def bad(change, arrays=None, *, raw=True):
    request = infer_request("delay", arrays or x(ROW), raw=raw)
    change(request)
    return request


def swap(request, **fields):
    for name, value in fields.items():
        setattr(request, name, value)


BAD = {  # request -> code, words, field, row
    "no such model": (lambda: infer_request("x", x(ROW)), "NOT_FOUND", "serving.no-model", None, None),
    "no such version": (lambda: infer_request("delay", x(ROW), version="9"), "NOT_FOUND", "serving.no-version", None, None),
    "no inputs": (lambda: infer_request("delay", {}), "INVALID_ARGUMENT", "serving.missing", "inputs", None),
    "not protobuf": (lambda: b"\xff\xff\xff", "INVALID_ARGUMENT", "serving.body", None, None),
    "another name": (lambda: infer_request("delay", {"y": x(ROW)["x"]}), "INVALID_ARGUMENT", "serving.name", "y", None),
    "another type": (lambda: infer_request("delay", {"x": (Datatype.FP64, np.zeros((1, 3)))}), "INVALID_ARGUMENT", "serving.type", "x", None),
    "out of range": (lambda: infer_request("delay", x(ROW, (1, -1, 3))), "INVALID_ARGUMENT", "serving.range", "distance", 1),
    "out of range, typed": (lambda: infer_request("delay", x(ROW, (1, 2, 30)), raw=False), "INVALID_ARGUMENT", "serving.range", "hour", 1),
    "a hole": (lambda: infer_request("delay", x((1, float("nan"), 3))), "INVALID_ARGUMENT", "serving.null", "distance", 0),
    "raw and typed": (lambda: bad(lambda r: r.inputs[0].contents.fp32_contents.append(1)), "INVALID_ARGUMENT", "serving.binary", "x", None),
    "raw of nobody": (lambda: bad(lambda r: r.raw_input_contents.append(b"")), "INVALID_ARGUMENT", "serving.binary", None, None),
    "raw too short": (lambda: bad(lambda r: r.raw_input_contents.__setitem__(0, b"123")), "INVALID_ARGUMENT", "serving.shape", "x", None),
    "the wrong field": (lambda: bad(lambda r: r.inputs[0].contents.fp64_contents.append(1), raw=False), "INVALID_ARGUMENT", "serving.type", "x", None),
    "an unknown output": (lambda: infer_request("delay", x(ROW), outputs=["q"]), "INVALID_ARGUMENT", "serving.name", "q", None),
    "an endless shape": (lambda: bad(lambda r: r.inputs[0].shape.extend([1] * 40)), "INVALID_ARGUMENT", "serving.shape", "x", None),
    "a shape below zero": (lambda: bad(lambda r: r.inputs[0].shape.__setitem__(0, -1)), "INVALID_ARGUMENT", "serving.shape", "x", None),
    "shared memory": (lambda: bad(lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(protos().message("inference.InferParameter")(string_param="a"))), "INVALID_ARGUMENT", "serving.extension", "x", None),
    "a long id": (lambda: bad(lambda r: swap(r, id="x" * 300)), "INVALID_ARGUMENT", "serving.id", "id", None),
}  # fmt: skip


@pytest.mark.parametrize(("make", "code", "reason", "field", "row"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_by_place(served, make, code, reason, field, row):
    got, words, told = refused(lambda: served.rpc.send("ModelInfer", make()))
    assert (got, told["falaj-code"]) == (code, reason), words
    if field is not None:
        assert told["findings"][0]["field"] == field
    if row is not None:
        assert told["findings"][0]["row"] == row
    boots = spool.boots(served.house.root / "spool")
    assert which_release(told["falaj-request"], boots) is None


def test_empty_contents_beside_raw_data_are_nothing(served):
    request = infer_request("delay", x(ROW))
    request.inputs[0].contents.SetInParent()
    assert served.rpc.send("ModelInfer", request).raw_output_contents


def test_all_findings_are_told_at_most_twenty(served):
    rows = [(1.0, -5.0, 3.0)] * 50
    _, _, told = refused(lambda: served.rpc.infer("delay", x(*rows)))
    assert len(told["findings"]) == 20


def test_log_and_names_are_those_of_rest(served):
    metadata = (("x-request-id", "abc-1"),)
    found = served.rpc.infer("delay", x((30.0, 733.0, 14.0)), metadata=metadata)
    name = served.rpc.trailing["falaj-request"]
    assert served.rpc.trailing["x-request-id"] == "abc-1"
    assert which_release(name, spool.boots(served.house.root / "spool")) == served.release.id
    until = time.monotonic() + 5
    rows = []
    while not rows and time.monotonic() < until:
        time.sleep(0.05)
        rows = [m.fact for m in spool.log(served.house.root / "spool") if m.fact.request == name]
    assert rows[0].x == [30.0, 733.0, 14.0]
    assert rows[0].y == [found["label"].tolist()[0], *found["probabilities"].ravel().tolist()]
    assert (rows[0].arm, rows[0].outcome, rows[0].release) == ("stable", "ok", served.release.id)


def counts(house):
    found = {}
    for mark in spool.counts(house.root / "spool"):
        one = mark.fact
        key = (one.source, one.model, one.rollout, one.stratum, one.step, one.metric)
        if key not in found or found[key].seq < one.seq:
            found[key] = one
    return found.values()


def test_both_doors_are_counted_together_by_assignment(house):
    stable, canary = house.release("1"), house.release("2")
    house.apply(stable, canary, 3000)
    client = started(house)
    arms = {stable.id: 0, canary.id: 0}
    for at in range(200):
        if at % 2:
            client.rpc.infer("delay", x(ROW))
            arms[client.rpc.trailing["falaj-release"]] += 1
        else:
            arms[client.infer(ROW)[1]["falaj-release"]] += 1
    assert client.terminate() == 0
    requests = [one for one in counts(house) if one.metric == "requests"]
    assert sum(one.n_s for one in requests) == arms[stable.id]
    assert sum(one.n_c for one in requests) == arms[canary.id]
    assert arms[canary.id] > 20


def test_stable_rescues_a_canary_that_fails(house):
    from servers import graph

    stable = house.release("1")
    canary = house.release("2", onnx_bytes=graph(trouble="crash"))
    house.apply(stable, canary, 10_000)
    client = started(house)
    client.rpc.infer("delay", x((1.0, 2.0, 3.0)))
    assert client.rpc.trailing["falaj-release"] == canary.id
    client.rpc.infer("delay", x((1.0, 2.0, 13.0)))
    assert client.rpc.trailing["falaj-release"] == stable.id
    client.terminate()
    errors = [one for one in counts(house) if one.metric == "errors"]
    assert (sum(one.x_c for one in errors), sum(one.n_c for one in errors)) == (1, 2)


def test_the_shadow_sees_calls_of_grpc_too(house):
    stable, shadow = house.release("1"), house.release("2")
    for made in (stable, shadow):
        house.place(made)
    plan = house.plan(stable, rollout="r1")
    mine = plan.models["delay"]
    mine = msgspec.structs.replace(mine, shadow=house.arm(shadow), shadow_bp=10_000)
    house.write(msgspec.structs.replace(plan, models={"delay": mine}))
    client = started(house)
    for _ in range(5):
        client.rpc.infer("delay", x(ROW))
    name = client.rpc.trailing["falaj-request"]
    until = time.monotonic() + 10
    arms = set()
    while len(arms) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        arms = {m.fact.arm for m in spool.log(house.root / "spool") if m.fact.request == name}
    assert arms == {"stable", "shadow"}


def test_an_engine_that_fails_is_an_internal_error(house):
    from servers import graph

    house.apply(house.release("1", onnx_bytes=graph(trouble="crash")))
    client = started(house)
    code, words, told = refused(lambda: client.rpc.infer("delay", x((1.0, 2.0, 13.0))))
    assert (code, told["falaj-code"]) == ("INTERNAL", "serving.engine")
    assert "model failed" in words


def test_a_hot_swap_reaches_grpc(house):
    first, second = house.release("1"), house.release("2", onnx_bytes=None, threshold="0.4")
    house.apply(first)
    client = started(house)
    client.rpc.infer("delay", x(ROW))
    assert client.rpc.trailing["falaj-release"] == first.id
    house.apply(second)
    client.until(lambda told: told["models"]["delay"]["stable"] == second.id)
    client.rpc.infer("delay", x(ROW))
    assert client.rpc.trailing["falaj-release"] == second.id


# limits


def test_a_deadline_that_is_over_is_not_worked_on(served):
    metadata = (("falaj-timeout-ms", "0"),)
    code, _, told = refused(lambda: served.rpc.infer("delay", x(ROW), metadata=metadata))
    assert (code, told["falaj-code"]) == ("DEADLINE_EXCEEDED", "serving.timeout")


def test_cancelled_calls_leave_the_server_well(served):
    method = served.rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    data = infer_request("delay", x(*[ROW] * 2000)).SerializeToString()
    calls = [method.future(data) for _ in range(50)]
    for call in calls:
        call.cancel()
    assert served.rpc.infer("delay", x(ROW))["label"].shape == (1,)


def test_a_message_that_is_too_large(served):
    code, _, _ = refused(lambda: served.rpc.send("ModelInfer", b"\0" * (17 * 1024 * 1024)))
    assert code == "RESOURCE_EXHAUSTED"


def test_compressed_messages_are_refused(served):
    method = served.rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    data = infer_request("delay", x(*[ROW] * 2000)).SerializeToString()
    code, _, _ = refused(lambda: method(data, compression=grpc.Compression.Gzip, timeout=10))
    assert code in ("UNIMPLEMENTED", "INTERNAL")


def test_metadata_that_is_too_large(served):
    many = tuple((f"x-{at}", "y" * 1000) for at in range(40))
    code, _, _ = refused(lambda: served.rpc.infer("delay", x(ROW), metadata=many))
    assert code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload", "Nothing"])
def test_what_is_live_cannot_be_changed_from_here(served, method):
    call = served.rpc.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    assert refused(lambda: call(b"", timeout=10))[0] == "UNIMPLEMENTED"


def test_any_bytes_are_answered_or_refused(served):
    dice = np.random.default_rng(7)
    good = infer_request("delay", x(ROW)).SerializeToString()
    for at in range(300):
        data = bytearray(good if at % 2 else dice.bytes(int(dice.integers(0, 200))))
        for _ in range(int(dice.integers(0, 4))):
            if data:
                data[int(dice.integers(0, len(data)))] = int(dice.integers(0, 256))
        try:
            served.rpc.send("ModelInfer", bytes(data))
        except grpc.RpcError as error:
            assert error.code().name in ("INVALID_ARGUMENT", "NOT_FOUND"), error


# health, reflection, the end


def test_health(served):
    assert served.rpc.call("Check", HEALTH).status == 1
    assert served.rpc.call("Check", HEALTH, service="delay").status == 1
    assert refused(lambda: served.rpc.call("Check", HEALTH, service="x"))[0] == "NOT_FOUND"


def watch(rpc, service=""):
    request = protos().message("grpc.health.v1.HealthCheckRequest")(service=service)
    return rpc.channel.unary_stream(
        f"/{HEALTH}/Watch",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=protos().message("grpc.health.v1.HealthCheckResponse").FromString,
    )(request, timeout=30)


def test_watchers_hear_the_end_and_never_take_the_threads_of_others(house):
    house.apply(house.release("1"))
    client = started(house)
    watchers = [watch(client.rpc) for _ in range(8)]
    assert [next(one).status for one in watchers] == [1] * 8
    assert refused(lambda: next(watch(client.rpc)))[0] == "RESOURCE_EXHAUSTED"
    assert client.rpc.infer("delay", x(ROW))["label"].shape == (1,)
    watchers.pop().cancel()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        again = watch(client.rpc, "nobody")
        try:
            assert next(again).status == 3
            break
        except grpc.RpcError:
            time.sleep(0.1)
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(one.status for one in watchers[0]))
    listener.start()
    assert client.terminate() == 0
    listener.join(10)
    assert heard[-1:] == [2]


def ask_reflection(rpc, package, **question):
    request = protos().message(f"{package}.ServerReflectionRequest")(**question)
    return next(
        rpc.channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=protos()
            .message(f"{package}.ServerReflectionResponse")
            .FromString,
        )(iter([request]), timeout=10)
    )


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection_tells_the_services_and_their_files(served, package):
    told = ask_reflection(served.rpc, package, list_services="*")
    names = [one.name for one in told.list_services_response.service]
    assert {"inference.GRPCInferenceService", HEALTH} <= set(names)
    for symbol in ("inference.GRPCInferenceService", "inference.ModelInferRequest"):
        told = ask_reflection(served.rpc, package, file_containing_symbol=symbol)
        (data,) = told.file_descriptor_response.file_descriptor_proto
        assert data == protos().files["open_inference.proto"]
    told = ask_reflection(served.rpc, package, file_containing_symbol="no.such")
    assert told.error_response.error_code == 5


def test_reflection_is_there_only_when_asked_for(house):
    house.apply(house.release("1"))
    client = started(house)
    code, _, _ = refused(
        lambda: ask_reflection(client.rpc, "grpc.reflection.v1", list_services="*")
    )
    assert code == "UNIMPLEMENTED"


def test_calls_in_work_are_answered_before_the_end(house):
    house.apply(house.release("1"))
    client = started(house)
    data = infer_request("delay", x(*[ROW] * 50_000)).SerializeToString()
    method = client.rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    method(data, timeout=20)
    calls = [method.future(data, timeout=20) for _ in range(4)]
    time.sleep(0.05)
    assert client.terminate() == 0
    assert all(call.code() is grpc.StatusCode.OK for call in calls)


def test_a_port_that_is_taken(house):
    house.apply(house.release("1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = house.start("--grpc-port", port, ready=False)
        _, err = process.communicate(timeout=20)
    assert b"serving.port" in err
    assert process.returncode != 0


def test_rest_beside_it_is_as_before(served):
    assert isinstance(served, Client)
    assert served.post("/v2/models/delay/infer", infer_body(ROW))[0] == 200


def test_workers_share_a_port_of_grpc(house):
    house.apply(house.release("1"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = house.start("--workers", "2", "--grpc-port", str(port))
    boots = set()
    for _ in range(24):
        rpc = RpcClient(f"127.0.0.1:{port}")
        rpc.infer("delay", x(ROW))
        boots.add(rpc.trailing["falaj-request"][:16])
        rpc.close()
    assert len(boots) == 2
    assert client.terminate() == 0
