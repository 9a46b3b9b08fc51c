"""gRPC: a bare echo of grpcio, and a real client that asks so many times over so many threads.

python serving_rpc.py echo PORT
python serving_rpc.py ask PORT REQUESTS THREADS ROWS.npy      prints failed, p50 and p99 in ms, as JSON
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MODEL = b"flights"


def varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        if not number:
            return out + bytes([low])
        out += bytes([low | 0x80])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(rows):
    """ModelInferRequest with one raw tensor `features`. rows: float32, shape (n, k)."""
    n, k = rows.shape
    tensor = field(1, b"features") + field(2, b"FP32") + field(3, varint(n) + varint(k))
    return field(1, MODEL) + field(5, tensor) + field(7, rows.astype("<f4").tobytes())


def echo(port):
    import grpc

    answer = (
        field(1, MODEL)
        + field(6, field(1, b"probabilities") + field(2, b"FP32"))
        + field(7, struct.pack("<2f", 0.5, 0.5))
    )

    class Handler(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def ask(port, requests, threads, path):
    import grpc
    import numpy as np

    x = np.load(path)
    messages = [message(x[at : at + 1]) for at in range(1000)]
    took, failed = [], []

    def work(first):
        channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
        )
        call = channel.unary_unary(METHOD)
        mine = []
        for at in range(first, requests, threads):
            begun = time.perf_counter()
            try:
                call(messages[at % 1000], timeout=60)
            except grpc.RpcError:
                failed.append(at)
                continue
            mine.append(time.perf_counter() - begun)
        took.extend(mine)
        channel.close()

    crew = [threading.Thread(target=work, args=(at,)) for at in range(threads)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    took.sort()
    print(
        json.dumps(
            {
                "failed": len(failed),
                "p50": took[len(took) // 2] * 1e3,
                "p99": took[len(took) * 99 // 100] * 1e3,
            }
            if took
            else {"failed": len(failed)}
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
