"""gRPC beside HTTP: the same models, split, counts, log and names of requests.

grpcio's synchronous server: its threads decode, run and encode by themselves, which costs less than
handing each call to the loop. What a call changes is left for the loop (`State.post`).
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import msgspec

from falaj.base.errors import FalajError
from falaj.base.tls import Peer, thumbprint_of
from falaj.doors.predict.guard import Grant
from falaj.doors.predict.health import Health, Reflection
from falaj.doors.predict.http import Request
from falaj.doors.predict.jobs import CLIENT_ID, Job
from falaj.doors.predict.routes import EXTENSIONS, LOG_FULL, NAME, TIMEOUT_S, Hot, Predict
from falaj.doors.predict.secure import Certificates
from falaj.serving.loading import EngineFailed, Loaded, Outputs
from falaj.serving.refusals import Finding, Refusal
from falaj.serving.rights import KNOWN
from falaj.serving.wire import rpc as wire
from falaj.serving.wire.messages import protos
from falaj.serving.wire.v2 import platform

__all__ = ["SERVICE", "Rpc", "RpcSettings"]

SERVICE: Final = "inference.GRPCInferenceService"
METHOD: Final = b"POST"
BEARER: Final = "authorization"
# Status of an answer over HTTP -> name of gRPC's code.
CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How gRPC is served. port: 0 takes a free one. Bytes, seconds, counts.

    certificate, key: PEM files; without them plain, on loopback. clients: PEM of the authorities
    whose client certificates are wanted; without it none is asked for.
    """

    host: str = "127.0.0.1"
    port: int = 0
    shared_port: bool = False
    reflection: bool = False
    certificate: str = ""
    key: str = ""
    clients: str = ""
    threads: int = 4
    calls: int = 256  # in work and waiting; more are refused at once
    streams: int = 100  # of one connection
    message: int = 16 * 1024 * 1024
    metadata: int = 16 * 1024
    age_s: float = 3600.0


class RpcJob(Job):
    """A call of gRPC. It is answered by the thread that asked."""

    door = "grpc"

    __slots__ = ("body", "name", "trouble")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.body = b""
        self.name = ""
        self.trouble: tuple[int, str, str] | None = None  # status, code, words

    def tell(self, body: bytes, request: str) -> None:
        self.body, self.name = body, request

    def tell_broken(self, status: int, code: str, words: str, request: str) -> None:
        self.trouble, self.name = (status, code, words), request

    def note_rescue(self, why: str) -> None:
        self.desk.post(partial(super().note_rescue, why))

    def account(self, us: int, outputs: Outputs, request: str, at_ns: int) -> None:
        self.desk.post(partial(super().account, us, outputs, request, at_ns))

    def account_broken(self, code: str, why: str, us: int, request: str, at_ns: int) -> None:
        self.desk.post(partial(super().account_broken, code, why, us, request, at_ns))


class Rpc:
    """The server of one process. Raises FalajError when it cannot listen."""

    def __init__(self, app: Predict, settings: RpcSettings) -> None:
        try:
            import grpc
            from google.protobuf.message import DecodeError
        except ModuleNotFoundError:
            raise FalajError(
                "serving.grpc-missing",
                "gRPC needs the package grpcio",
                fix="pip install 'falaj[grpc]'",
            ) from None
        self.grpc = grpc
        self.app = app
        self.settings = settings
        self.codes = {status: grpc.StatusCode[name] for status, name in CODES.items()}
        self.answered: dict[str, int] = {}  # code -> calls that were not answered
        find = protos().message
        self.request = find("inference.ModelInferRequest").FromString
        self.broken = DecodeError
        # Health is for everybody; where callers are asked who they are, names of models are not.
        self.health = Health(lambda: app.ready, lambda: [] if app.guard else list(self._models()))
        self.pool = ThreadPoolExecutor(settings.threads, "grpc")
        self.server = grpc.server(
            self.pool,
            handlers=self._handlers(),
            options=[
                ("grpc.so_reuseport", int(settings.shared_port)),
                ("grpc.max_receive_message_length", settings.message),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", settings.streams),
                ("grpc.max_metadata_size", settings.metadata),
                ("grpc.absolute_max_metadata_size", settings.metadata),
                ("grpc.max_connection_age_ms", int(settings.age_s * 1000)),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Identity alone: a small compressed message may be a large one.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ],
            maximum_concurrent_rpcs=settings.calls,
        )
        self.port = self._listen()

    def start(self) -> None:
        self.server.start()

    def tick(self) -> None:
        """Tell watchers of the health that it changed; on the loop, each quarter second."""
        self.health.look()

    def stop(self, grace_s: float) -> threading.Event:
        """No new calls; those in work have `grace_s`."""
        self.health.close()
        stopped: threading.Event = self.server.stop(grace_s)
        return stopped

    def _listen(self) -> int:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.port}"
        try:
            if settings.certificate:
                self.certificates = Certificates(self.grpc, settings)
                port = self.server.add_secure_port(address, self.certificates.credentials())
            else:
                port = self.server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise FalajError(
                "serving.port",
                f"port {settings.port} on {settings.host}: gRPC cannot listen there",
                fix="choose another port, or 0 for a free one",
            )
        return int(port)

    def _handlers(self) -> list[Any]:
        grpc = self.grpc
        unary = grpc.unary_unary_rpc_method_handler
        calls: dict[str, Callable[[Any], Any]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": self.app.ready},
            "ServerMetadata": self._server,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model,
        }
        methods = {
            name: unary(
                partial(self._small, act, protos().message(f"inference.{name}Response")),
                protos().message(f"inference.{name}Request").FromString,
            )
            for name, act in calls.items()
        }
        methods["ModelInfer"] = unary(self.model_infer)  # bytes in, bytes out
        found = [
            grpc.method_handlers_generic_handler(SERVICE, methods),
            *self.health.handlers(grpc),
        ]
        if self.settings.reflection:
            found.extend(Reflection().handlers(grpc))
        return found

    # small calls

    def _small(self, act: Callable[[Any], Any], answer: Any, request: Any, context: Any) -> bytes:
        try:
            if act in (self._server, self._model_ready, self._model):
                headers = {k.encode(): v for k, v in context.invocation_metadata() if k == BEARER}
                headers = {k: v.encode() for k, v in headers.items()}
                grant = self._grant(headers, context)
                model = getattr(request, "name", "")
                if grant is not None:
                    action = "infer" if model else KNOWN
                    grant.guard.judged(grant, action, model, time.monotonic())
            told = act(request)
        except Refusal as refusal:
            self._refuse(refusal, context)
        made = answer(**told) if isinstance(told, dict) else told
        data: bytes = made.SerializeToString()
        return data

    def _models(self) -> dict[str, Any]:
        current = self.app.current
        return dict(current.models) if current else {}

    def _server(self, request: Any) -> dict[str, Any]:
        del request
        return {"name": NAME, "version": self.app.version, "extensions": EXTENSIONS}

    def _model_ready(self, request: Any) -> dict[str, Any]:
        self.app.live(request.name, request.version)
        return {"ready": self.app.ready}

    def _model(self, request: Any) -> Any:
        live = self.app.live(request.name, request.version)
        engine = (live.version(request.version) if request.version else None) or live.stable
        kind = platform(engine.manifest.runtime)
        return wire.metadata(live.name, live.versions, engine, kind)

    # inference

    def model_infer(self, data: bytes, context: Any) -> bytes:
        """Answer a call; of a mistake of ours the caller hears no details."""
        try:
            return self.infer(data, context)
        except Exception as error:  # top of the door
            if context.code() is not None:
                raise  # this is how `context.abort` ends a call
            words = f"{type(error).__name__}: {error}"
            print(f"falaj: {words}", file=sys.stderr, flush=True)
            self.app.post(partial(self._mistake, words))
            self._abort(context, 500, "serving.internal", "this server made a mistake", "")
            raise

    def _mistake(self, words: str) -> None:
        self.app.failures += 1
        self.app.last_failure = words

    def infer(self, data: bytes, context: Any) -> bytes:
        """One ModelInfer. Runs in a thread of grpcio; ends in an answer or in `context.abort`."""
        app = self.app
        headers = {
            name.encode(): value.encode() if isinstance(value, str) else value
            for name, value in context.invocation_metadata()
        }
        request = Request(METHOD, b"", headers, b"", False, False)
        try:
            # While it drains it still answers: balancers need their time to hear that it leaves.
            if app.current is None or app.isolated:
                self._unavailable(context)
            grant = self._grant(headers, context)
            try:
                message = self.request(data)
            except self.broken:
                raise Refusal(Finding("serving.body", "body: no ModelInferRequest")) from None
            if grant is not None:
                grant.guard.judged(grant, "infer", message.model_name, time.monotonic())
                request.rights = grant.rights
            live = app.live(message.model_name, message.model_version)
            if app.log.full and live.name in app.strict:
                raise Refusal(Finding("serving.log-full", LOG_FULL), status=503)
            named = live.version(message.model_version) if message.model_version else None
            request.body = message
            call = wire.decode((named or live.stable).reader, message)
            hot = Hot(live, named, wire.decode, wire.encode)
            left = self._time_left(request, context)
            job: Any = app.assign(hot, call, request, None, RpcJob)
        except Refusal as refusal:
            self._refuse(refusal, context)
        answer(job, left)
        if job.trouble is not None:
            status, code, words = job.trouble
            self._abort(context, status, code, words, job.name)
        lines = [("falaj-release", job.engine.release), ("falaj-request", job.name)]
        client = headers.get(b"x-request-id")
        if client is not None and CLIENT_ID.fullmatch(client):
            lines.append(("x-request-id", client.decode()))
        context.set_trailing_metadata(lines)
        body: bytes = job.body
        return body

    def _grant(self, headers: dict[bytes, bytes], context: Any) -> Grant | None:
        """Who calls, where identities are asked for. Raises Refusal for nobody."""
        guard = self.app.guard
        if guard is None:
            return None
        now = time.monotonic()
        text = headers.get(b"authorization", b"")
        grant = guard.known_as(text, peer_in(context.auth_context()), now)
        if grant.rights is None:
            guard.judged(grant, "infer", "", now)
        return grant

    def _time_left(self, request: Request, context: Any) -> float:
        """Seconds until nobody waits any more. Cancelled and expired calls are not started."""
        left = context.time_remaining()
        seconds = TIMEOUT_S if left is None else min(left, TIMEOUT_S)
        asked = request.headers.get(b"falaj-timeout-ms", b"")
        if asked.isdigit() and len(asked) < 10:
            seconds = min(seconds, int(asked) / 1000)
        if seconds <= 0 or not context.is_active():
            app = self.app
            app.post(lambda: app.shed.update(deadline=app.shed.get("deadline", 0) + 1))
            self._abort(context, 504, "serving.timeout", "no time was left", "")
        return seconds

    def _unavailable(self, context: Any) -> None:
        app = self.app
        code = "serving.isolated" if app.isolated else "serving.not-ready"
        words = app.isolated or "this server takes no requests"
        app.post(lambda: app.shed.update(not_ready=app.shed.get("not_ready", 0) + 1))
        context.set_trailing_metadata((("falaj-code", code), ("retry-after", "1")))
        context.abort(self.codes[503], words)

    def _refuse(self, refusal: Refusal, context: Any) -> None:
        app, first = self.app, refusal.findings[0]
        app.post(
            lambda: app.refusals.update({first.code: app.refusals.get(first.code, 0) + 1}),
        )
        request = app.ids.name("", app.ids.next())
        told = msgspec.json.encode([finding._asdict() for finding in refusal.findings])
        context.set_trailing_metadata(
            (
                ("falaj-code", first.code),
                ("falaj-request", request),
                ("falaj-findings-bin", told[:4096] if len(told) <= 4096 else b"[]"),
            )
        )
        context.abort(self.codes[refusal.status], first.message)

    def _abort(self, context: Any, status: int, code: str, words: str, request: str) -> None:
        lines = [("falaj-code", code)]
        if request:
            lines.append(("falaj-request", request))
        context.set_trailing_metadata(lines)
        context.abort(self.codes.get(status, self.grpc.StatusCode.INTERNAL), words)


def peer_in(found: Any) -> Peer | None:
    """Read a client certificate out of grpcio's context, where all values are lists of bytes."""
    pem = found.get("x509_pem_cert")
    if not pem:
        return None
    der = ssl.PEM_cert_to_DER_cert(pem[0].decode())
    names = found.get("peer_spiffe_id") or [b""]
    return Peer(names[0].decode() if len(names) == 1 else "", thumbprint_of(der))


def answer(job: RpcJob, left_s: float) -> None:
    """Run a call to its end, in the thread that asks; stable rescues what the canary cannot do."""
    if job.engine is None:
        job.rescue("the canary is not loaded")
    until = job.begun_ns + int(left_s * 1e9)
    while not job.done:
        engine: Loaded = job.engine
        try:
            outputs = engine.run([job.rows])
        except EngineFailed as error:
            late: EngineFailed | None = error
        else:
            late = job.too_late(0)
        if late is None and time.perf_counter_ns() > until:
            job.broken("no answer in time", 0, 504)
        elif late is None:
            name = job.desk.ids.name(engine.release, job.counter)
            job.finish(job.form(engine, job.call, outputs, name), outputs, name, 0)
        elif not job.rescue(str(late)):
            job.broken(str(late), 0)
