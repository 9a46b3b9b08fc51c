"""gRPC's own services: health checking, and reflection for tools that know no messages.

Streams hold a thread as long as the client likes: they have few of their own, never those that answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from falaj.serving.wire.messages import protos

__all__ = ["Health", "Reflection"]

STREAMS: Final = 8
QUESTIONS: Final = 64  # of one stream of reflection
STREAM_S: Final = 300.0
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SERVICE: Final = "inference.GRPCInferenceService"


class Streams:
    """Threads for streams, and a bound on them: one more is refused, not queued."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(STREAMS + 1, name)  # the last one says no
        self.free = threading.BoundedSemaphore(STREAMS)

    def bound(self, act: Callable[[Any, Any], Iterator[Any]], grpc: Any) -> Any:
        def behave(request: Any, context: Any) -> Iterator[Any]:
            if not self.free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open")
            try:
                yield from act(request, context)
            finally:
                self.free.release()

        behave.experimental_thread_pool = self.pool  # type: ignore[attr-defined]
        return behave


class Health:
    """`grpc.health.v1.Health`: the server as a whole, and its one service.

    Names of models are services, too, so that a balancer can watch one of them.
    """

    def __init__(self, ready: Callable[[], bool], models: Callable[[], list[str]]) -> None:
        self.ready = ready
        self.models = models
        self.changed = threading.Condition()
        self.seen: tuple[Any, ...] = ()
        self.closed = False
        self.streams = Streams("health")
        self.answer = protos().message("grpc.health.v1.HealthCheckResponse")

    def status(self, service: str) -> int:
        if service not in ("", SERVICE, *self.models()):
            return SERVICE_UNKNOWN
        return SERVING if self.ready() and not self.closed else NOT_SERVING

    def look(self) -> None:
        """Wake the watchers when something changed."""
        now = (self.ready(), *self.models())
        if now != self.seen:
            self.seen = now
            with self.changed:
                self.changed.notify_all()

    def close(self) -> None:
        """Say that nothing is served any more, and let the watchers go."""
        self.closed = True
        with self.changed:
            self.changed.notify_all()
        self.streams.pool.shutdown(wait=False)

    def handlers(self, grpc: Any) -> list[Any]:
        read = protos().message("grpc.health.v1.HealthCheckRequest").FromString
        write = self.answer.SerializeToString

        def check(request: Any, context: Any) -> Any:
            status = self.status(request.service)
            if status == SERVICE_UNKNOWN:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
            return self.answer(status=status)

        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(check, read, write),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self.streams.bound(self._watch, grpc), read, write
            ),
        }
        return [grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)]

    def _watch(self, request: Any, context: Any) -> Iterator[Any]:
        def wake() -> None:
            with self.changed:
                self.changed.notify_all()

        context.add_callback(wake)  # the client went
        told = -1
        while context.is_active():
            status = self.status(request.service)
            if status != told:
                told = status
                yield self.answer(status=status)
            if self.closed:
                return
            with self.changed:
                if context.is_active() and self.status(request.service) == told:
                    self.changed.wait(5)


class Reflection:
    """`grpc.reflection.v1` and `v1alpha`: which services there are, and their descriptors."""

    def __init__(self) -> None:
        self.streams = Streams("reflection")

    def handlers(self, grpc: Any) -> list[Any]:
        found = []
        for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
            read = protos().message(f"{package}.ServerReflectionRequest").FromString
            answer = protos().message(f"{package}.ServerReflectionResponse")

            def behave(
                requests: Iterator[Any], context: Any, answer: Any = answer
            ) -> Iterator[Any]:
                # A client that asks nothing more would hold the thread: it has its time.
                timer = threading.Timer(STREAM_S, context.cancel)
                timer.daemon = True
                timer.start()
                try:
                    begun = time.monotonic()
                    for number, request in enumerate(requests):
                        if number >= QUESTIONS or time.monotonic() - begun > STREAM_S:
                            return
                        yield reflect(request, answer)
                finally:
                    timer.cancel()

            methods = {
                "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                    self.streams.bound(behave, grpc), read, answer.SerializeToString
                )
            }
            name = f"{package}.ServerReflection"
            found.append(grpc.method_handlers_generic_handler(name, methods))
        return found


def reflect(request: Any, answer: Any) -> Any:
    """Answer one question of reflection."""
    known = protos()
    told = answer(valid_host=request.host, original_request=request)
    asked = request.WhichOneof("message_request")
    if asked == "list_services":
        for name in sorted(known.services):
            told.list_services_response.service.add(name=name)
        return told
    file = None
    if asked == "file_by_filename":
        file = known.files.get(request.file_by_filename)
    elif asked == "file_containing_symbol":
        try:
            found = known.pool.FindFileContainingSymbol(request.file_containing_symbol)
            file = known.files.get(found.name)
        except KeyError:
            file = None
    if file is None:
        told.error_response.error_code = 5  # NOT_FOUND; there are no extensions either
        told.error_response.error_message = "not found"
    else:
        told.file_descriptor_response.file_descriptor_proto.append(file)
    return told
