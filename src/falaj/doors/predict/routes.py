"""All routes of the data plane. Hot: inference. The rest is cold and answers at once."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

import msgspec

from falaj.base import time as clock
from falaj.doors.predict import metrics, openapi, page, sums
from falaj.doors.predict.forms import instances_body, predict_body, v2_body
from falaj.doors.predict.guard import Guard, asked_of
from falaj.doors.predict.http import Connection, Request, error_body
from falaj.doors.predict.jobs import TIMEOUT_S, Job
from falaj.doors.predict.jobs import timeout_s as wait_s
from falaj.doors.predict.staging import Live, Prepared
from falaj.doors.predict.state import State
from falaj.facts.serving import Boot
from falaj.serving import labels, spool
from falaj.serving.batching import MAX_ROWS
from falaj.serving.counts import CANARY, STABLE, Tally
from falaj.serving.features import Lookup, Table
from falaj.serving.journal import LogFile
from falaj.serving.loading import EngineFailed, Loaded, Outputs
from falaj.serving.requests import RequestIds
from falaj.serving.rights import Rights
from falaj.serving.schema import Finding, Reader, Refusal
from falaj.serving.wire import v2
from falaj.serving.wire.instances import decode_instances, decode_invocation

__all__ = ["EXTENSIONS", "LOG_FULL", "NAME", "TIMEOUT_S", "Hot", "Predict"]

NAME: Final = "falaj"
EXTENSIONS: Final = ("binary_tensor_data",)
BULK_TURNS: Final = 20.0  # what large requests may wait, in terms of small ones
RETIRE_S: Final = 1.0
BULK_WAITING: Final = 32

LOG_FULL: Final = "the inference log is full, and an answer that is not logged is forbidden"
AGAIN: Final = b"retry-after: 1\r\n"
MORE: Final = {401: b"www-authenticate: Bearer\r\n", 429: AGAIN, 503: AGAIN}

encode: Final = msgspec.json.Encoder().encode


class Hot(NamedTuple):
    """What an inference address stands for under the current plan."""

    live: Live
    named: Loaded | None  # a version the client named
    decode: Callable[[Reader, bytes, int], v2.Call]
    form: Callable[[Loaded, v2.Call, Outputs, str], bytes]


class Predict(State):
    """The application of one server process. Everything but bulk work runs on its loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ids: RequestIds,
        tally: Tally,
        log: LogFile,
        truth: labels.LabelFile,
        version: str,
        name: str = "",
    ) -> None:
        super().__init__(loop, ids, tally, log, name)
        self.truth = truth
        self.version = version
        self.hot: dict[bytes, Hot] = {}
        self.bulk = ThreadPoolExecutor(2, "bulk")
        self.away = ThreadPoolExecutor(4, "away")  # wait for other processes, never for stable
        self.bulk_us = 0.0  # predicted work of large requests that wait
        self.disk = ThreadPoolExecutor(1, "disk")
        self.bulk_waiting = 0
        self.boots: dict[str, Boot] = {}
        self.guard: Guard | None = None
        self.table: Callable[[str], Table | None] = lambda _: None
        self.known_only = False  # beyond this machine nobody is let in without an access table

    def switch(self, prepared: Prepared) -> None:
        """Step two of a new plan: one assignment, between two requests."""
        hot: dict[bytes, Hot] = {}
        for name, live in prepared.models.items():
            at = f"/v2/models/{name}".encode()
            hot[at + b"/infer"] = Hot(live, None, v2.decode, v2_body)
            for version in live.versions:
                path = b"%b/versions/%b/infer" % (at, version.encode())
                hot[path] = Hot(live, live.version(version), v2.decode, v2_body)
            hot[f"/predict?model={name}".encode()] = self._named_rows(live)
            path = f"/v1/models/{name}:predict".encode()
            hot[path] = Hot(live, None, decode_instances, instances_body)
        if len(prepared.models) == 1:
            (only,) = prepared.models.values()
            hot[b"/predict"] = self._named_rows(only)
            hot[b"/invocations"] = Hot(only, None, decode_invocation, instances_body)
        for release in prepared.releases:
            self.heads[release] = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"falaj-release: %b\r\nfalaj-request: " % release.encode()
            )
        old = self.current
        for remote in prepared.far.values():
            remote.attach(self.loop)
        self.current, self.hot = prepared, hot
        kept = list(prepared.far.values())
        for remote in old.far.values() if old else ():
            if remote not in kept:
                # What was assigned a moment ago is still to be asked.
                self.loop.call_later(RETIRE_S, remote.retire)
        self.remotes = [r for r in self.remotes if r.up and r not in kept] + kept
        self.plan_since = time.time()
        models = prepared.plan.models
        self.strict = frozenset(n for n, model in models.items() if model.on_full == "refuse")
        access = prepared.plan.access
        guarded = access is not None or self.known_only
        self.guard = Guard(access, results=self.auth, buckets=self.buckets) if guarded else None
        self.log.use(prepared.plan.log_key)

    def _named_rows(self, live: Live) -> Hot:
        """Rows by name, and where the plan says so by key: the rest is looked up."""
        plan = live.plan.features
        if plan is None:
            return Hot(live, None, v2.decode_rows, predict_body)
        fill = Lookup(plan, partial(self.table, plan.table), self.features, time.time)
        return Hot(live, None, partial(v2.decode_rows, fill=fill), predict_body)

    def __call__(self, request: Request, connection: Connection) -> None:
        """Answer `connection` once, now or later; nothing leaves here as an exception."""
        try:
            hot = self.hot.get(request.target)
            if hot is not None and request.method == b"POST":
                if self.guard is not None:
                    grant = self.guard.admit(request, connection, "infer", hot.live.name)
                    request.rights = grant.rights
                self.infer(hot, request, connection)
            else:
                self.cold(request, connection)
        except Refusal as refusal:
            self.refuse(refusal, connection)
        except Exception as error:  # top of the door: a bug must not take the connection down
            self.failures += 1
            self.last_failure = f"{type(error).__name__}: {error}"
            print(f"falaj: {self.last_failure}", file=sys.stderr, flush=True)
            if connection.work is request:
                connection.answer(500, error_body("serving.internal", "this server made a mistake"))

    # inference

    def infer(self, hot: Hot, request: Request, connection: Connection) -> None:
        if self.isolated:
            self.shed["isolated"] = self.shed.get("isolated", 0) + 1
            self.unavailable(connection, "serving.isolated", self.isolated)
            return
        if self.log.full and hot.live.name in self.strict:
            self.shed["log"] = self.shed.get("log", 0) + 1
            self.unavailable(connection, "serving.log-full", LOG_FULL)
            return
        live, size = hot.live, len(request.body)
        if size > live.bulk_bytes:
            self.submit(hot, None, request, connection)
        elif self.turn.cost_us > self.max_queue_us:
            self.overload(connection, self.turn.cost_us, "too much waits here already")
        else:
            self.turn.cost_us += live.predicted_us(size)
            reader = (hot.named or hot.live.stable).reader
            call = hot.decode(reader, request.body, json_size(request))
            if call.rows.n > MAX_ROWS:
                self.submit(hot, call, request, connection)
            else:
                job = self.assign(hot, call, request, connection)
                if job.engine is None:
                    job.fail(EngineFailed("the canary is not loaded"), 0)
                else:
                    self.turn.add(job)

    def assign(
        self, hot: Hot, call: v2.Call, request: Request, connection: Any, make: type[Job] = Job
    ) -> Job:
        """Number the request and decide its arm. From here on it is counted, whatever happens.

        Changes nothing but the counter, so that threads of gRPC may call it, too.
        """
        ids, live = self.ids, hot.live
        counter = ids.next()
        split = live.split
        stratum = time.time_ns() // 1_000_000 // split.stratum_ms
        counted = chosen = False
        arm = STABLE
        engine: Loaded | None = live.stable
        if hot.named is not None and live.plan.canary is not None:
            # The client chose: such a request says nothing about the arms.
            chosen = True
            engine = hot.named
            arm = CANARY if hot.named is live.canary else STABLE
        elif request.rights is not None and (wish := self._chosen(live, request)) >= 0:
            chosen = True
            arm = wish
            engine = live.canary if wish == CANARY else live.stable
        else:
            key = b""
            if split.weight_bp:
                key = f"{ids.boot}{counter:012x}".encode()
                if split.canary(request.headers, key, stratum):
                    arm = CANARY
                    engine = live.canary
            plan = live.plan
            again = split.sticky and not self.tally.first(
                plan.rollout, split.key(request.headers, key)
            )
            # Nor does one that is asked again because an arm could not answer it.
            counted = bool(plan.rollout) and not again and not is_repeated(request)
        if arm == CANARY and engine is not None and engine.reader is not live.stable.reader:
            same = engine.manifest.schema.inputs == live.stable.manifest.schema.inputs
            if not same and hot.named is None:
                try:
                    call = hot.decode(engine.reader, request.body, json_size(request))
                except Refusal:
                    engine = None  # stable takes what its own schema takes; the canary does not
        return make(
            self,
            live,
            call,
            request,
            connection,
            hot.form,
            counter,
            stratum,
            arm,
            engine,
            counted,
            chosen,
        )

    def _chosen(self, live: Live, request: Request) -> int:
        """Return the arm that a tester asks for, or -1. Such a request counts in no arm."""
        asked = request.headers.get(b"falaj-arm")
        if asked is None or live.canary is None:
            return -1
        held: Rights = request.rights
        if not (held.may("override", live.name) or held.names & set(live.plan.split.testers)):
            return -1  # a header that anybody can send changes nothing
        return {b"canary": CANARY, b"stable": STABLE}.get(asked.strip().lower(), -1)

    def submit(
        self, hot: Hot, call: v2.Call | None, request: Request, connection: Connection
    ) -> None:
        """Large requests leave the loop: decoding, running and encoding happen in a thread."""
        cost_us = hot.live.predicted_us(len(request.body))
        most_us = min(timeout_s(request) * 1e6, BULK_TURNS * self.max_queue_us)
        if self.bulk_waiting >= BULK_WAITING or (self.bulk_waiting and self.bulk_us > most_us):
            self.overload(connection, self.bulk_us, "too many large requests are waiting")
            return
        self.bulk_waiting += 1
        self.bulk_us += cost_us
        task = self.loop.create_task(self.in_bulk(hot, call, request, connection))
        task.add_done_callback(lambda _: None)

    async def in_bulk(
        self, hot: Hot, call: v2.Call | None, request: Request, connection: Connection
    ) -> None:
        try:
            if call is None:
                reader = (hot.named or hot.live.stable).reader
                size = json_size(request)
                call = await self.loop.run_in_executor(
                    self.bulk, hot.decode, reader, request.body, size
                )
            job = self.assign(hot, call, request, connection)
            deadline = timeout_s(request) - (time.perf_counter_ns() - request.at_ns) / 1e9
            timer = self.loop.call_later(
                max(deadline, 0.0), job.broken, "no answer in time", 0, 504
            )
            if job.engine is None:
                job.rescue("the canary is not loaded")
            while not job.done:
                try:
                    outputs, body, name = await self.loop.run_in_executor(
                        self.away if job.engine.away else self.bulk, compute, job
                    )
                except EngineFailed as error:
                    late: EngineFailed | None = error
                else:
                    late = job.too_late(0)
                if late is None:
                    job.finish(body, outputs, name, 0)
                elif not job.rescue(str(late)):
                    job.broken(str(late), 0)
            timer.cancel()
        except Refusal as refusal:
            self.refuse(refusal, connection)
        finally:
            self.bulk_waiting -= 1
            self.bulk_us -= hot.live.predicted_us(len(request.body))

    def overload(self, connection: Connection, waiting_us: float, words: str) -> None:
        """Say no at once, before anything is read: later would be too late for everybody."""
        self.shed["overload"] = self.shed.get("overload", 0) + 1
        after = max(1, round(waiting_us / 1e6))
        body = error_body("serving.overload", words)
        connection.answer(503, body, headers=b"retry-after: %d\r\n" % after)

    def refuse(self, refusal: Refusal, connection: Connection) -> None:
        """4xx: in no arm, counted apart."""
        first = refusal.findings[0]
        self.refusals[first.code] = self.refusals.get(first.code, 0) + 1
        more: dict[str, Any] = {}
        if first.field:
            more["field"] = first.field
        if first.row >= 0:
            more["row"] = first.row
        if len(refusal.findings) > 1:
            more["findings"] = [finding._asdict() for finding in refusal.findings]
        request = self.ids.name("", self.ids.next())
        body = error_body(first.code, first.message, request=request, **more)
        line = b"falaj-request: %b\r\n" % request.encode()
        connection.answer(refusal.status, body, headers=line + MORE.get(refusal.status, b""))

    def unavailable(self, connection: Connection, code: str, message: str) -> None:
        connection.answer(503, error_body(code, message), headers=b"retry-after: 1\r\n")

    # everything else

    def cold(self, request: Request, connection: Connection) -> None:
        target = request.target
        if not target.startswith(b"/"):
            raise Refusal(Finding("serving.target", "target: expected a path"), status=400)
        path, _, query = target.decode("latin-1").partition("?")
        parts = tuple(unquote(part) for part in path.split("/")[1:])
        method = "GET" if request.method == b"HEAD" else request.method.decode("latin-1")
        if parts[:2] == ("v2", "repository"):
            words = "what is live comes from the traffic plan only"
            connection.answer(405, error_body("serving.method", words), headers=b"allow:\r\n")
            return
        if self.guard is not None and not connection.is_admin:
            self._guarded(parts, query, request, connection)
        found = self.find(parts, query, request, connection)
        if found is None:
            words = f"no such address: {path[:100]}"
            connection.answer(404, error_body("serving.address", words))
            return
        wanted, act = found
        if method != wanted:
            allow = "GET, HEAD" if wanted == "GET" else wanted
            body = error_body("serving.method", f"method: got {method}, expected {allow}")
            connection.answer(405, body, headers=f"allow: {allow}\r\n".encode())
            return
        act()

    def _guarded(
        self, parts: tuple[str, ...], query: str, request: Request, connection: Connection
    ) -> None:
        """Let health through, and nobody else without a right. Raises Refusal."""
        guard = self.guard
        if guard is None or parts in (("v2", "health", "live"), ("v2", "health", "ready")):
            return
        models = list(self.current.models) if self.current else []
        action, model = asked_of(parts, query, models)
        request.rights = guard.admit(request, connection, action, model).rights

    def find(
        self, parts: tuple[str, ...], query: str, request: Request, connection: Connection
    ) -> tuple[str, Callable[[], None]] | None:
        """Method and action of a cold address."""
        match parts:
            case ("",):
                return "GET", lambda: self.front(connection)
            case ("v2",) | ("v2", ""):
                return "GET", lambda: self.server(connection)
            case ("v2", "health", "live"):
                return "GET", lambda: connection.answer(200, encode({"live": True}))
            case ("v2", "health", "ready"):
                return "GET", lambda: self.health(connection)
            case ("openapi.json",):
                return "GET", lambda: self._openapi(connection)
            case ("metrics",):
                return "GET", lambda: self.metrics(connection, alone="alone" in query)
            case ("summaries",) if connection.is_admin:
                return "GET", lambda: self._summaries(query, connection)
            case ("v2", "models", model):
                return "GET", lambda: self.model(model, "", connection)
            case ("v2", "models", model, "versions", version):
                return "GET", lambda: self.model(model, version, connection)
            case ("v2", "models", model, "ready"):
                return "GET", lambda: self.model_ready(model, "", connection)
            case ("v2", "models", model, "versions", version, "ready"):
                return "GET", lambda: self.model_ready(model, version, connection)
            case ("v2", "models", model, "infer"):
                return "POST", lambda: self.named(model, "", request, connection)
            case ("v2", "models", model, "versions", version, "infer"):
                return "POST", lambda: self.named(model, version, request, connection)
            case ("predict",):
                return "POST", lambda: self.predict(query, request, connection)
            case ("try", model):
                return "POST", lambda: self._try_it(model, request, connection)
            case ("invocations",):
                return "POST", lambda: self._invoke(query, request, connection)
            case ("v1", "models"):
                return "GET", lambda: self._models(connection)
            case ("v1", "models", model) if model.endswith(":predict"):
                return "POST", lambda: self._instances(model[:-8], request, connection)
            case ("v1", "models", model):
                return "GET", lambda: self.model_ready(model, "", connection)
            case ("ground-truth", model):
                return "POST", lambda: self.ground_truth(model, request, connection)
            case _:
                return None

    def metrics(self, connection: Connection, *, alone: bool) -> None:
        """Tell the counters of this process; at the admin listener with those of its neighbours."""
        mine = metrics.text(self, connection.desk)
        others = self.neighbours() if connection.is_admin and not alone else []
        if not others:
            connection.answer(200, mine, kind=metrics.KIND)
            return
        self.loop.create_task(self._all_metrics(mine, others, connection)).add_done_callback(
            lambda _: None
        )

    async def _all_metrics(self, mine: bytes, others: list[str], connection: Connection) -> None:
        found = await asyncio.gather(*(sums.ask(url, "/metrics?alone") for url in others))
        texts = [text for text in found if text is not None]
        text = sums.merged([mine, *texts], missing=len(found) - len(texts))
        connection.answer(200, text, kind=metrics.KIND)

    def _summaries(self, query: str, connection: Connection) -> None:
        """Counts as they are in the spool, behind what `after` of an earlier answer says."""
        after = parse_qs(query).get("after", [""])[0]
        task = self.loop.create_task(self._all_summaries(after, connection))
        task.add_done_callback(lambda _: None)

    async def _all_summaries(self, after: str, connection: Connection) -> None:
        try:
            body = await self.loop.run_in_executor(
                self.disk, sums.summaries, self.truth.folder, after
            )
        except Refusal as refusal:
            self.refuse(refusal, connection)
        except OSError as error:
            words = f"the spool cannot be read: {error.strerror}"
            self.unavailable(connection, "serving.spool", words)
        else:
            connection.answer(200, body)

    def named(self, model: str, version: str, request: Request, connection: Connection) -> None:
        """Serve an inference address in another spelling than the usual one."""
        live = self.live(model, version)
        chosen = live.version(version) if version else None
        self.infer(Hot(live, chosen, v2.decode, v2_body), request, connection)

    def live(self, model: str, version: str = "") -> Live:
        """Return the model, and the version must be live in some arm. Raises Refusal, 404."""
        current = self.current
        live = current.models.get(model) if current else None
        if live is None:
            words = f"no model {model[:60]!r} is live here"
            raise Refusal(Finding("serving.no-model", words), status=404)
        if version and live.version(version) is None:
            words = f"{model}: version {version[:60]!r} is not live, {live.versions} are"
            raise Refusal(Finding("serving.no-version", words), status=404)
        return live

    def predict(self, query: str, request: Request, connection: Connection) -> None:
        self.infer(self._named_rows(self.only(query)), request, connection)

    def _invoke(self, query: str, request: Request, connection: Connection) -> None:
        """MLflow's address of a scoring server."""
        hot = Hot(self.only(query), None, decode_invocation, instances_body)
        self.infer(hot, request, connection)

    def _instances(self, name: str, request: Request, connection: Connection) -> None:
        hot = Hot(self.live(name), None, decode_instances, instances_body)
        self.infer(hot, request, connection)

    def _models(self, connection: Connection) -> None:
        names = list(self.current.models) if self.current else []
        connection.answer(200, encode({"models": names}))

    def only(self, query: str) -> Live:
        """Return the model that a query names, or the only one. Raises Refusal."""
        models = self.current.models if self.current else {}
        asked = parse_qs(query).get("model", [])
        if not asked and len(models) != 1:
            words = f"model: say ?model=NAME; live are {', '.join(models) or 'none'}"
            raise Refusal(Finding("serving.no-model", words, "model"))
        return self.live(asked[0] if asked else next(iter(models)))

    def server(self, connection: Connection) -> None:
        told = {"name": NAME, "version": self.version, "extensions": EXTENSIONS}
        connection.answer(200, encode(told))

    def health(self, connection: Connection) -> None:
        told = self.state()
        if self.guard is not None and not connection.is_admin:
            told = {"live": True, "ready": self.ready}  # anybody may ask this much
        connection.answer(200 if self.ready else 503, encode(told))

    def model(self, name: str, version: str, connection: Connection) -> None:
        live = self.live(name, version)
        loaded = (live.version(version) if version else None) or live.stable
        kind = v2.platform(loaded.manifest.runtime)
        told = v2.metadata(name, live.versions, loaded.manifest.schema, kind)
        line = b"falaj-release: %b\r\n" % loaded.release.encode()
        connection.answer(200, encode(told), headers=line)

    def model_ready(self, name: str, version: str, connection: Connection) -> None:
        self.live(name, version)
        told = {"name": name, "ready": self.ready}
        connection.answer(200 if self.ready else 503, encode(told))

    def _openapi(self, connection: Connection) -> None:
        models = self.current.models if self.current else {}
        connection.answer(200, encode(openapi.describe(models, self.version)))

    def front(self, connection: Connection) -> None:
        connection.answer(200, page.page(self), kind=page.KIND, headers=page.HEADERS)

    def _try_it(self, name: str, request: Request, connection: Connection) -> None:
        """A question from the page: a request like any other, answered as a page."""
        if request.headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            # A page elsewhere must not ask in the name of whoever reads it.
            words = "the form of this server's own page is meant"
            raise Refusal(Finding("serving.origin", words), status=403)
        live = self.live(name)
        try:
            self.infer(Hot(live, None, page.decode_form, page.answer_page), request, connection)
        except Refusal as refusal:
            self.ids.next()
            code = refusal.findings[0].code
            self.refusals[code] = self.refusals.get(code, 0) + 1
            text = page.refusal_page(name, refusal)
            connection.answer(refusal.status, text, kind=page.KIND, headers=page.HEADERS)

    def ground_truth(self, model: str, request: Request, connection: Connection) -> None:
        kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            # A web page elsewhere can make a browser send forms and text here, but not this type.
            words = "content-type: expected application/json"
            raise Refusal(Finding("serving.content-type", words), status=415)
        self.live(model)
        others = {
            release
            for name, live in (self.current.models if self.current else {}).items()
            if name != model
            for release in (live.stable.release, live.canary.release if live.canary else "")
        }
        self.loop.create_task(
            self.take_truth(model, others, request, connection)
        ).add_done_callback(lambda _: None)

    async def take_truth(
        self, model: str, others: set[str], request: Request, connection: Connection
    ) -> None:
        counter = self.ids.counter

        def work() -> tuple[int, list[labels.Rejected]]:
            folder = self.truth.folder

            def known(name: str) -> str:
                boot = name[:16]
                if boot not in self.boots or boot == self.ids.boot:
                    self.boots = {record.boot: record for record in spool.boots(folder)}
                return labels.is_known(
                    name, self.boots, own=self.ids.boot, counter=counter, releases=others
                )

            rows, rejected = labels.read(model, request.body, known, clock.now())
            self.truth.write(rows)
            return len(rows), rejected

        try:
            accepted, rejected = await self.loop.run_in_executor(self.disk, work)
        except Refusal as refusal:
            self.refuse(refusal, connection)
        except OSError as error:
            words = f"ground truth cannot be stored: {error.strerror}"
            self.unavailable(connection, "serving.labels-full", words)
        else:
            told = {"accepted": accepted, "rejected": msgspec.to_builtins(rejected)}
            connection.answer(202, encode(told))


def compute(job: Job) -> tuple[Outputs, bytes, str]:
    """Run a large request whole, in a thread."""
    outputs = job.engine.run([job.rows])
    name = job.desk.ids.name(job.engine.release, job.counter)
    return outputs, job.form(job.engine, job.call, outputs, name), name


def is_repeated(request: Request) -> bool:
    """Tell whether the client, or its library, sends this request not for the first time."""
    headers = request.headers
    told = headers.get(b"falaj-attempt") or headers.get(b"grpc-previous-rpc-attempts")
    return told is not None and told.strip(b"0") != b""


def json_size(request: Request) -> int:
    """Bytes of JSON before binary data, -1 where there is none. Raises Refusal."""
    told = request.headers.get(b"inference-header-content-length")
    if told is None:
        return -1
    # Digits alone: two headers are joined by a comma, and a sign is no size.
    if not told.isdigit() or len(told) > 12:
        words = "inference-header-content-length: expected one number of bytes"
        raise Refusal(Finding("serving.binary", words))
    return int(told)


def timeout_s(request: Request) -> float:
    """Seconds that the answer may take."""
    return wait_s(request.headers.get(b"falaj-timeout-ms", b""))
