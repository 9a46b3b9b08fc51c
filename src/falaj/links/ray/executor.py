"""Steps on the nodes of a Ray cluster: one task an order, and nothing is ever tried again by Ray.

The driver is this process, so this machine has to be one of the cluster's nodes. Orders and
outcomes travel as JSON; code, datasets and artifacts lie in the project's folder, which every node
sees under the same path. That is looked at before the first step, and by each step again.
"""

from __future__ import annotations

import base64
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from falaj.base.errors import FalajError
from falaj.base.files import write_atomic
from falaj.base.points import Series, unpack
from falaj.facts.runs import Ending
from falaj.links.ray.task import attempt
from falaj.ports.executor import Hear, Order, Outcome

__all__ = ["RayExecutor"]

AT_ONCE: Final = 32  # orders under way where nobody says how many; Ray decides how many run
LOOK_S: Final = 5.0  # between two looks at whether a waiting step can still run anywhere
GONE_S: Final = 30.0  # without the head, before a run is given up
LATE_S: Final = 15.0  # a node ends a late step itself; this much later its silence ends it
KNOCK_S: Final = 5.0  # for the head to take a connection
ANSWER_S: Final = 15.0  # for the head to say who it is
ENTER_S: Final = 75.0  # for the rest; Ray looks for this machine among the nodes for 60
JOIN_S: Final = 60.0  # for every node to say whether it is fit
END_S: Final = 15.0  # for tasks to end when the run does
MIB: Final = 1024 * 1024
# A process of Ray's that ends would kill its child alone, which could then not end its own.
KEPT: Final = {"RAY_kill_child_processes_on_worker_exit": "false"}


class RayExecutor:
    """The port TellingExecutor over a Ray cluster that is there already; none is ever started.

    address: of the cluster's head. token_file: holds its token. entry: `module:function` that a
    node calls with an order. state: the project's workspace. expects: what a node must have too.
    at_once: 0 leaves it to the cluster.
    """

    def __init__(
        self,
        *,
        address: str,
        token_file: Path,
        entry: str,
        state: Path,
        expects: Callable[[], Mapping[str, Any]],
        at_once: int = 0,
    ) -> None:
        self.at_once = at_once or AT_ONCE
        self._address, self._token_file = address, token_file
        self._entry, self._expects = entry, expects
        self._session = secrets.token_hex(16)
        self._witness = state / f"nodes-{self._session}"
        self._asked: dict[str, Any] = {}
        self._lock = threading.Condition()
        self._streams: dict[int, Any] = {}
        self._closed = self._joined = False

    def run(self, order: Order) -> Outcome:
        """Raises FalajError when the cluster cannot be used at all."""
        return self.run_telling(order, _unheard)

    def run_telling(self, order: Order, hear: Hear) -> Outcome:
        with self._lock:
            if self._closed:
                return Outcome(ending=Ending.LOST, message="the run was ended")
            self._join()
            lacking = _lacking(order.resources)
            if lacking:
                return Outcome(ending=Ending.LOST, message=lacking)
            stream = self._send(order)
            self._streams[id(stream)] = stream
        try:
            return self._outcome(_Stream(stream), order, hear)
        finally:
            with self._lock:
                del self._streams[id(stream)]
                self._lock.notify_all()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for stream in self._streams.values():
                _cancel(stream)
            self._lock.wait_for(lambda: not self._streams, END_S)
            if self._joined:
                self._witness.unlink(missing_ok=True)
                _Cluster.leave()

    def _join(self) -> None:
        """Once: enter the cluster, and ask every node whether it is fit for steps."""
        if self._joined:
            return
        _Cluster.enter(self._address, self._token_file)
        self._joined = True  # what goes wrong from here on is put right by `close`
        write_atomic(self._witness, self._session.encode())
        self._asked = {
            "session": self._session,
            "witness": str(self._witness),
            "expects": dict(self._expects()),
        }
        _look_round(self._entry, json.dumps({**self._asked, "order": None}))

    def _send(self, order: Order) -> Any:
        import ray

        takes = order.resources
        options: dict[str, Any] = {"num_cpus": takes.get("cpu", 1), "name": f"falaj {order.id}"}
        if takes.get("memory_mb"):
            options["memory"] = int(takes["memory_mb"] * MIB)
        if takes.get("gpu"):
            options["num_gpus"] = takes["gpu"]
        text = json.dumps({**self._asked, "order": msgspec.to_builtins(order)})
        task = ray.remote(num_returns="streaming", max_retries=0)(attempt)
        return task.options(**options).remote(self._entry, text)

    def _outcome(self, stream: _Stream, order: Order, hear: Hear) -> Outcome:
        """What the node says, or what its silence means."""
        import ray

        begun, node = time.perf_counter(), ""
        try:
            while (said := stream.next(LOOK_S)) is None:
                lacking = _lacking(order.resources)
                if lacking:  # the last node that had enough is gone
                    _cancel(stream.inner)
                    return Outcome(ending=Ending.LOST, message=lacking)
            begun, node = time.perf_counter(), said["node"]
            where = f"{said['at']} ({node[:8]})"
            late_s = math.inf if order.timeout_s is None else order.timeout_s + LATE_S
            while True:
                left_s = begun + late_s - time.perf_counter()
                answer = stream.next_from(node, max(left_s, 0))
                if answer is None or "said" not in answer:
                    break
                said = answer["said"]
                hear(said["metrics"], unpack(base64.b64decode(said["points"])))
        except (ray.exceptions.RayError, StopIteration) as error:
            seconds = time.perf_counter() - begun
            return Outcome(ending=Ending.LOST, message=_how(error, node), seconds=seconds)
        if answer is None:
            _cancel(stream.inner)
            return Outcome(
                ending=Ending.TIMEOUT,
                message=f"node {where} did not end it either",
                seconds=time.perf_counter() - begun,
            )
        if "outcome" not in answer:
            raise _unfit(where, answer)
        return msgspec.convert(answer["outcome"], Outcome)


def _unheard(_metrics: Mapping[str, float], _lines: Sequence[Series]) -> None:
    """Nobody listens."""


class _Stream:
    """Answers of one task, one after another."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def next(self, within_s: float | None) -> dict[str, Any] | None:
        """None when nothing came in time. Raises RayError, or StopIteration at the end."""
        import ray

        ready, _ = ray.wait([self.inner], timeout=within_s)
        if not ready:
            return None
        said: dict[str, Any] = json.loads(ray.get(next(self.inner)))
        return said

    def next_from(self, node: str, within_s: float) -> dict[str, Any] | None:
        """The same of a task that runs there. Raises NodeDiedError when the node goes.

        Of a node that goes in the middle Ray may never say a word about its tasks.
        """
        import ray

        end = time.monotonic() + within_s
        while True:
            left = max(end - time.monotonic(), 0)
            answer = self.next(min(left, LOOK_S))
            if answer is not None or left == 0:
                return answer
            if not _lives(node):
                _cancel(self.inner)
                raise ray.exceptions.NodeDiedError("it left the cluster")


class _Cluster:
    """The place of this process in a cluster. Ray knows one a process: executors share it."""

    LOCK: ClassVar = threading.Lock()
    users: ClassVar[int] = 0
    at: ClassVar[tuple[str, Path] | None] = None
    missed: ClassVar[float | None] = None  # since when the head takes no connection
    known: ClassVar[list[dict[str, Any]]] = []

    @classmethod
    def enter(cls, address: str, token_file: Path) -> None:
        with cls.LOCK:
            if cls.users == 0:
                _init(address, token_file)
                cls.at, cls.missed = (address, token_file), None
            elif cls.at != (address, token_file):
                raise _unreachable(address, f"this process works with {cls.at} already")
            cls.users += 1

    @classmethod
    def nodes(cls) -> list[dict[str, Any]]:
        """Nodes that live and take steps. Raises FalajError when the head is gone for good."""
        import ray

        if cls.at is None:
            return []
        try:
            _knock(cls.at[0])
        except FalajError:
            cls.missed = cls.missed or time.monotonic()
            if time.monotonic() - cls.missed > GONE_S:
                raise
            return cls.known  # Ray would not come back from the question
        cls.missed = None
        cls.known = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]
        return cls.known

    @classmethod
    def leave(cls) -> None:
        import ray

        with cls.LOCK:
            cls.users -= 1
            if cls.users == 0:
                ray.shutdown()


def _init(address: str, token_file: Path) -> None:
    try:
        if not token_file.read_text().strip():
            raise _no_token(token_file, "it is empty")
    except OSError as error:
        raise _no_token(token_file, error.strerror or "it cannot be read") from None
    # Ray reads them when it is loaded, and takes the first for the stronger one.
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # After a minute without the head Ray would end this process; see `_Cluster.nodes`.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "86400")
    try:
        import ray
    except ImportError:
        raise FalajError(
            "pipelines.extra-missing",
            "steps are to run on Ray, which is not installed",
            fix="pip install 'falaj[ray]'",
        ) from None
    _knock(address)
    if ray.is_initialized():
        raise _unreachable(address, "this process has entered a cluster by itself already")
    entrance = _Entrance(address)
    entrance.start()
    if entrance.answered.wait(ANSWER_S):
        entrance.join(ENTER_S)
    if entrance.is_alive():
        entrance.given_up = True
        silent_s = ENTER_S if entrance.answered.is_set() else ANSWER_S
        raise _unreachable(address, f"it took the connection and was silent for {silent_s:.0f} s")
    failed = entrance.error
    if isinstance(failed, ray.exceptions.AuthenticationError):
        raise FalajError(
            "pipelines.cluster-token",
            f"the Ray cluster at {address} refuses the token",
            why=f"it was started with another one than {token_file} holds",
            fix="put the cluster's token into that file",
        )
    if failed is not None:
        raise _unreachable(address, _first_line(failed))


def _knock(address: str) -> None:
    """Ray itself would wait for a head that is not there, or answers nothing."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, _first_line(error)) from None


class _Entrance(threading.Thread):
    """`ray.init`, which has no limit of time, in a thread that can be left alone."""

    def __init__(self, address: str) -> None:
        super().__init__(name="enter the Ray cluster", daemon=True)
        self._address = address
        self.error: Exception | None = RuntimeError("it broke off")
        self.answered = threading.Event()
        self.given_up = False

    def run(self) -> None:
        import ray
        from ray._private import worker
        from ray._raylet import GcsClient  # what `init` itself asks first

        # Else it prints what nodes say of themselves, into the document of `--json` as well.
        worker._worker_logs_enabled = False  # noqa: SLF001 `log_to_driver` leaves this out
        try:
            # A wrong token is told here at once; `init` takes it for a head that is not up yet.
            GcsClient(address=self._address)
            self.answered.set()
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": KEPT},
            )
            self.error = None
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            self.error = error
            self.answered.set()
        if self.given_up:
            ray.shutdown()


def _unreachable(address: str, why: str) -> FalajError:
    return FalajError(
        "pipelines.cluster-unreachable",
        f"the Ray cluster at {address} cannot be entered",
        why=why,
        fix="start it with token authentication, and this machine as one of its nodes, or choose "
        'executor = "worker" in [pipelines]',
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _no_token(file: Path, why: str) -> FalajError:
    return FalajError(
        "pipelines.cluster-token",
        f"there is no token for the Ray cluster in {file}",
        why=why,
        fix="write the cluster's token into it; only you should be able to read it",
    )


def _look_round(entry: str, text: str) -> None:
    """Every node that would get steps says whether it is fit. Raises with all that are not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_returns="streaming", max_retries=0, num_cpus=0)(attempt)
    asked = []
    for node in _Cluster.nodes():
        at = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        stream = task.options(scheduling_strategy=at, name="falaj look").remote(entry, text)
        where = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        asked.append((node["NodeID"], where, _Stream(stream)))
    until, errors = time.monotonic() + JOIN_S, []
    for name, where, stream in asked:
        try:
            answer: dict[str, Any] | None = {"node": ""}
            while answer is not None and "node" in answer:
                answer = stream.next_from(name, max(until - time.monotonic(), 0))
        except (ray.exceptions.RayError, StopIteration) as error:
            if not _lives(name):
                continue  # it has just gone: it gets no steps
            answer = {"differs": f"Falaj does not start there: {_how(error, '')}"}
        if answer is None:
            _cancel(stream.inner)
            answer = {"differs": f"it did not answer within {JOIN_S:.0f} s"}
        if "fit" not in answer:
            errors.append(_unfit(where, answer))
    if errors:
        raise FalajError.of(tuple(problem for error in errors for problem in error.problems))


def _unfit(where: str, answer: Mapping[str, Any]) -> FalajError:
    if "blind" in answer:
        return FalajError(
            "pipelines.node-blind",
            f"node {where} of the Ray cluster does not see the project's folder",
            why=f"{answer['blind']} is not there: steps read code, data and artifacts under the "
            "paths of this machine",
            fix="mount the project's folder on every node under the same path",
        )
    return FalajError(
        "pipelines.node-differs",
        f"node {where} of the Ray cluster differs from this machine: {answer['differs']}",
        why="the key of a step names the environment that it runs in; it has to be the same",
        fix="give every node the same environment, variables included",
    )


def _lives(node: str) -> bool:
    return any(found["NodeID"] == node for found in _Cluster.nodes())


def _lacking(takes: Mapping[str, float]) -> str:
    """Words when no living node could ever run it; Ray would wait for one for good."""
    wants = {
        "CPU": takes.get("cpu", 1),
        "GPU": takes.get("gpu", 0),
        "memory": takes.get("memory_mb", 0) * MIB,
    }
    for node in _Cluster.nodes():
        if all(node["Resources"].get(name, 0) >= amount for name, amount in wants.items()):
            return ""
    shown = ", ".join(f"{name} {amount:g}" for name, amount in takes.items()) or "cpu 1"
    return f"no node of the cluster has {shown}"


def _cancel(stream: Any) -> None:
    import ray

    try:
        ray.cancel(stream, force=True)
    except (ray.exceptions.RayError, ValueError):
        return  # it has ended by itself


def _how(error: Exception, node: str) -> str:
    """How a task was lost, in words."""
    import ray

    match error:
        case ray.exceptions.TaskCancelledError():
            return "the run was ended"
        case ray.exceptions.OutOfMemoryError():
            return "memory of its node ran out"
        case ray.exceptions.WorkerCrashedError() | ray.exceptions.NodeDiedError():
            lives = not node or _lives(node)
            return "Ray's process for it went away" if lives else f"node {node[:8]} was lost"
        case StopIteration():
            return "it ended without an answer"
        case _:
            text = str(getattr(error, "cause", None) or error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {text[-1]}"
