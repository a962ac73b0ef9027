"""A KServe v2 server of a few lines, which answers well, or does what it is told to do wrong."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

# run as a script it sees its own folder only
sys.path.append(str(Path(__file__).parents[1]))
from camera_rig import free_port
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

Outputs = dict[str, np.ndarray[Any, Any]]
Tensor = tuple[str, str, list[int]]
TYPES = {"uint8": "UINT8", "float32": "FP32", "float64": "FP64", "int32": "INT32", "int64": "INT64"}
NUM_BOXES = 2


def good_answer(rows: int) -> Outputs:
    """What ``tiny_models.tiny_model`` finds, with scores of its own."""
    boxes = np.tile(np.array([[4, 4, 20, 20], [10, 8, 28, 30]], np.float32), (rows, 1, 1))
    scores = np.tile(np.array([0.75, 0.7], np.float32), (rows, 1))
    return {"boxes": boxes, "scores": scores, "labels": np.tile(np.array([0, 1], np.int32), (rows, 1))}


class KserveServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves one model called ``tiny``.

    Attributes:
        answer: rows → outputs; may raise, wait, and answer wrongly.
        is_spoiled: whether ``answer`` is asked, and not ``good_answer``.
        num_asked: batches so far.
        inputs, outputs: name, type and sizes of its tensors.
    """

    inputs: Sequence[Tensor] = (("frames", "UINT8", [-1, 32, 32, 3]),)
    outputs: Sequence[Tensor] = (
        ("boxes", "FP32", [-1, NUM_BOXES, 4]),
        ("scores", "FP32", [-1, NUM_BOXES]),
        ("labels", "INT32", [-1, NUM_BOXES]),
    )

    def __init__(
        self, *, tls: tuple[Path, Path] | None = None, token: str = "", side: int = 32, box_names: str = "boxes"
    ) -> None:
        """Args: certificate and key, the token that every request must bring, what the metadata say."""
        self.answer: Callable[[int], Outputs] = good_answer
        self.is_spoiled = False
        self.num_asked = 0
        self._token = token
        if side != 32:
            self.inputs = (("frames", "UINT8", [-1, side, side, 3]),)
        if box_names != "boxes":
            self.outputs = ((box_names, "FP32", [-1, NUM_BOXES, 4]), *type(self).outputs[1:])
        self._tls = tls
        self.port = free_port()
        self.url = f"grpc{'' if tls is None else 's'}://127.0.0.1:{self.port}/tiny"
        self._server: Any = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_send_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if self._tls is None:
            self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            pair = (self._tls[1].read_bytes(), self._tls[0].read_bytes())
            self._server.add_secure_port(f"127.0.0.1:{self.port}", grpc.ssl_server_credentials([pair]))
        self._server.start()

    def stop(self) -> None:
        """At once."""
        self._server.stop(0).wait(5)

    def __enter__(self) -> KserveServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ModelReady(self, request: Any, context: Any) -> Any:
        self._check_token(context)
        return pb.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._check_token(context)
        facts = pb.ModelMetadataResponse.TensorMetadata

        def told(tensors: Sequence[Tensor]) -> list[Any]:
            return [facts(name=name, datatype=kind, shape=shape) for name, kind, shape in tensors]

        return pb.ModelMetadataResponse(name="tiny", inputs=told(self.inputs), outputs=told(self.outputs))

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._check_token(context)
        self.num_asked += 1
        values = self.values(request)
        told = pb.ModelInferResponse.InferOutputTensor
        return pb.ModelInferResponse(
            model_name="tiny",
            outputs=[told(name=name, datatype=TYPES[one.dtype.name], shape=one.shape) for name, one in values.items()],
            raw_output_contents=[one.tobytes() for one in values.values()],
        )

    def values(self, request: Any) -> Outputs:
        """What it answers."""
        rows = request.inputs[0].shape[0]
        return self.answer(rows) if self.is_spoiled else good_answer(rows)

    def _check_token(self, context: Any) -> None:
        told = dict(context.invocation_metadata()).get("authorization", "")
        if self._token and told != f"Bearer {self._token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


def with_nan(rows: int) -> Outputs:
    found = good_answer(rows)
    found["scores"][0, 0] = np.nan
    return found


def endless(rows: int) -> Outputs:
    time.sleep(30)
    return good_answer(rows)


def changed(**values: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[int], Outputs]:
    """Good answers of which some outputs are made into others."""
    return lambda rows: {name: values[name](one) if name in values else one for name, one in good_answer(rows).items()}


def refusing(rows: int) -> Outputs:
    raise RuntimeError("out of memory")


HOSTILE: Mapping[str, Callable[[int], Outputs]] = {
    "rows": lambda rows: good_answer(rows + 1),
    "shape": changed(boxes=lambda one: one.reshape(one.shape[0], -1)),
    "dtype": changed(scores=lambda one: one.astype(np.float64)),
    "nan": with_nan,
    "infinite": changed(boxes=lambda one: one * np.float32(np.inf)),
    "missing": lambda rows: {"boxes": good_answer(rows)["boxes"]},
    "silence": endless,
    "huge": changed(boxes=lambda one: np.zeros((100 << 20) // 4, np.float32)),
    "error": refusing,
}


class HostileProcess:
    """A server of one kind of ``HOSTILE`` in a process of its own: what it costs is not ours."""

    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def say(self, word: str) -> None:
        """``spoil`` or ``heal``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


class DripServer:
    """Takes every connection and sends a byte a second for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"grpc://127.0.0.1:{self._listener.getsockname()[1]}/tiny"
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._take, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._stopping.set()
        self._listener.close()

    def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                taken = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._drip, args=(taken,), daemon=True).start()

    def _drip(self, taken: socket.socket) -> None:
        with taken:
            # the beginning of an HTTP/2 frame of 16 MB
            for byte in b"\xff\xff\xff" + bytes(1000):
                if self._stopping.wait(1.0):
                    return
                try:
                    taken.sendall(bytes([byte]))
                except OSError:
                    return


def main() -> None:
    """Serve well until told to spoil."""
    logging.disable()
    with KserveServer() as server:
        server.answer = HOSTILE.get(sys.argv[1], good_answer)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        for word in sys.stdin:
            server.is_spoiled = word == "spoil\n"


if __name__ == "__main__":
    main()
