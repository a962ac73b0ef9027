"""A connection to a model on a KServe v2 server: what the model is was checked, and every wait has an end.

The server may be anybody's: an answer of another shape or type, one that is no number, one that never comes, comes
byte by byte or is huge is an ``EngineError``, and costs this model only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.addresses.networks import is_loopback
from edge.addresses.secrets import read_secret
from edge.engines.kserve_memory import SharedSlot, sized
from edge.errors import EngineError, ModelError
from edge.interfaces import TensorInfo

# children of ours are other programs: gRPC need not be ready for a fork, and tells of it on standard error
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
from tritonclient.utils.shared_memory import SharedMemoryException

if TYPE_CHECKING:
    from edge.config.remote import RemoteSettings
    from edge.types import Array

CheckModel = Callable[[Sequence[TensorInfo], Sequence[TensorInfo]], None]
# of a question that needs no model
ASK_S = 2.0
# of a server that loads its model at the first batch
FIRST_BATCH_S = 10.0
# masks of 16 pictures need 50
MAX_REPLY_BYTES = 64 << 20
DYNAMIC_MAX_BATCH = 8
# requests that were given up, whose memory the server may still write to
MAX_ABANDONED = 8
DTYPES = {
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BOOL": "bool",
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FAULTS = (
    *(InferenceServerException, SharedMemoryException, grpc.RpcError),
    *(ValueError, TypeError, LookupError, ArithmeticError, OSError, MemoryError),
)
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    # a server that comes back is found at once
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # two clients are two connections: the second one is there for when the first one hangs
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class WrongAnswerError(EngineError):
    """The server is there and answers, but wrongly or too late."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is. Attributes: ``host:port``, the model's name there, whether the way is encrypted."""

    address: str
    model: str
    is_sealed: bool

    @classmethod
    def of(cls, url: str, name: str) -> Place:
        """Args: ``grpc://HOST:PORT`` or ``grpc://HOST:PORT/MODEL``; the model's name if the address has none."""
        scheme, _, rest = url.partition("://")
        address, _, model = rest.partition("/")
        return cls(address, model or name, scheme == "grpcs")

    @property
    def is_here(self) -> bool:
        """Whether the server is on this machine."""
        host = self.address.rpartition(":")[0].strip("[]")
        with contextlib.suppress(ValueError):
            return host == "localhost" or is_loopback(host)
        return False

    def __str__(self) -> str:
        return f"grpc{'s' if self.is_sealed else ''}://{self.address}/{self.model}"


class Link:
    """Used by one thread, except for ``close``."""

    def __init__(
        self, place: Place, settings: RemoteSettings, dtype: str, max_batch: int | None, check: CheckModel
    ) -> None:
        """Connect, check what the model is, and run it once.

        Args:
            place, settings: where it is, and how it is spoken to.
            dtype: of the model's input.
            max_batch: the most rows of a batch; None: what the server says.
            check: sees inputs and outputs, raises ModelError where they are not those of the manifest.

        Raises:
            ModelError: it is another model, or the files of the settings cannot be read.
            EngineError: there is no server, or it does not do what it should.
        """
        self.place = place
        self._headers = _headers(settings.token_file)
        self._clients = [_client(place, settings.ca_file) for _ in range(2)]
        self._free: deque[SharedSlot] = deque()
        self._abandoned: deque[SharedSlot] = deque()
        self._is_shared = False
        self.num_hedged = 0
        try:
            self._learn(max_batch, check)
            self._try(dtype)
            self._is_shared = settings.shared_memory == "auto" and place.is_here and self._can_share()
        except ModelError:
            self.close()
            raise
        except FAULTS as error:
            self.close()
            raise EngineError(f"{place}: {reason_of(error)}") from None

    @property
    def is_shared(self) -> bool:
        """Whether batches go through shared memory."""
        return self._is_shared

    def infer(self, tensor: Array, timeout_s: float, hedge_after_s: float) -> dict[str, Array]:
        """Run a batch; see ``edge.interfaces.Engine``.

        Args:
            tensor: the batch.
            timeout_s: the most that it may take.
            hedge_after_s: when it is sent a second time; the first good answer counts.

        Raises:
            WrongAnswerError: the answer is late or wrong.
            EngineError: the server is gone.
        """
        until_s = time.monotonic() + timeout_s
        answers: queue.SimpleQueue[tuple[int, Any, Any]] = queue.SimpleQueue()
        sent = [self._send(0, tensor, timeout_s, answers)]
        waiting = {0}
        error: EngineError | None = None
        while waiting:
            found = _next(answers, min(until_s, time.monotonic() + hedge_after_s) if len(sent) == 1 else until_s)
            if found is None and len(sent) == 1 and time.monotonic() < until_s:
                sent.append(self._send(1, tensor, until_s - time.monotonic(), answers))
                waiting.add(1)
                self.num_hedged += 1
            elif found is None:
                error = WrongAnswerError(f"{self.place}: no answer within {1e3 * timeout_s:.0f} ms")
                break
            else:
                number, result, failure = found
                waiting.discard(number)
                if failure is None:
                    self._abandon([one for one in sent if one is not sent[number]])
                    return self._read(result, sent[number], len(tensor))
                error = self._failure(failure)
        self._abandon(sent)
        assert error is not None
        raise error

    def close(self) -> None:
        """End the connections; whatever is under way ends with an error. May be called twice."""
        self._forget(len(self._free) + len(self._abandoned))
        for client in self._clients:
            client.close()

    def _learn(self, max_batch: int | None, check: CheckModel) -> None:
        client, name = self._clients[0], self.place.model
        if not client.is_model_ready(name, headers=self._headers, client_timeout=ASK_S):
            raise EngineError(f"{self.place}: the server is there, its model is not ready")
        facts = client.get_model_metadata(name, headers=self._headers, client_timeout=ASK_S)
        self.inputs, self.outputs = [_info(one) for one in facts.inputs], [_info(one) for one in facts.outputs]
        if len(self.inputs) != 1 or not self.outputs:
            names = ", ".join(one.name for one in self.inputs)
            raise ModelError(f"{self.place}: expected one input and some outputs, found the inputs {names or 'none'}")
        check(self.inputs, self.outputs)
        rows = self.inputs[0].shape[0]
        self.is_fixed_batch = rows is not None
        self.max_batch = rows or max_batch or self._stated_batch() or DYNAMIC_MAX_BATCH

    def _stated_batch(self) -> int | None:
        """What Triton's configuration says; other servers have none, and Triton 0 for models without batches."""
        try:
            told = self._clients[0].get_model_config(self.place.model, headers=self._headers, client_timeout=ASK_S)
        except InferenceServerException:
            return None
        return max(0, min(int(told.config.max_batch_size), 256)) or None

    def _try(self, dtype: str) -> None:
        """Run batches of nothing, so that what is slow at the first one is over, and what is wrong is seen."""
        size = [length or 1 for length in self.inputs[0].shape[1:]]
        for rows in {self.max_batch, self.max_batch if self.is_fixed_batch else 1}:
            self.infer(np.zeros((rows, *size), dtype), FIRST_BATCH_S, FIRST_BATCH_S)

    def _can_share(self) -> bool:
        """Whether the server takes shared memory: MLServer does not, nor does one in a container of its own."""
        self._is_shared = True
        try:
            self._free.append(self._new_slot())
            self._try(self.inputs[0].dtype)
        except (InferenceServerException, SharedMemoryException, EngineError):
            self._is_shared = False
            self._forget(len(self._free) + len(self._abandoned))
        return self._is_shared

    def _new_slot(self) -> SharedSlot:
        size = np.prod([length or 1 for length in self.inputs[0].shape[1:]]) * np.dtype(self.inputs[0].dtype).itemsize
        return SharedSlot(self._clients[0], self.max_batch * int(size), sized(self.outputs), self.max_batch)

    def _send(self, number: int, tensor: Array, timeout_s: float, answers: queue.SimpleQueue[Any]) -> _Sent:
        given = triton.InferInput(self.inputs[0].name, list(tensor.shape), _NAMES[tensor.dtype.name])
        wanted = [triton.InferRequestedOutput(tensor.name) for tensor in self.outputs]
        slot = None
        try:
            if self._is_shared:
                slot = self._free.popleft() if self._free else self._new_slot()
                slot.write(tensor, given)
                for one in wanted:
                    slot.ask(one, one.name())
            else:
                given.set_data_from_numpy(tensor)
            context = self._clients[number].async_infer(
                self.place.model,
                [given],
                partial(_note, answers, number),
                outputs=wanted,
                client_timeout=timeout_s,
                headers=self._headers,
            )
        except FAULTS as error:
            raise self._failure(error) from None
        return _Sent(slot, context)

    def _read(self, result: Any, sent: _Sent, rows: int) -> dict[str, Array]:
        """The outputs, checked."""
        slot = sent.slot
        try:
            found = {tensor.name: self._output(result, slot, tensor, rows) for tensor in self.outputs}
        except FAULTS as error:
            self._abandon([sent])
            raise WrongAnswerError(f"{self.place}: a wrong answer: {reason_of(error)}") from None
        if slot is not None:
            self._free.append(slot)
        return found

    def _output(self, result: Any, slot: SharedSlot | None, tensor: TensorInfo, rows: int) -> Array:
        told = result.get_output(tensor.name)
        if told is None:
            raise ValueError(f"output {tensor.name!r} is missing")
        shape, dtype = tuple(int(size) for size in told.shape), DTYPES.get(told.datatype, told.datatype)
        expected = (rows, *tensor.shape[1:])
        fits = len(shape) == len(expected) and all(
            want in (None, have) for want, have in zip(expected, shape, strict=True)
        )
        if not fits or dtype != tensor.dtype or min(shape) < 0:
            raise ValueError(f"output {tensor.name!r}: expected {tensor.dtype} {expected}, found {dtype} {shape}")
        shared = None if slot is None else slot.read(tensor.name, dtype, shape)
        values: Array = result.as_numpy(tensor.name) if shared is None else shared
        # one pass: a sum is no number if one of them is none
        if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
            raise ValueError(f"output {tensor.name!r}: not all values are numbers")
        return values

    def _abandon(self, sent: Sequence[_Sent]) -> None:
        """Give requests up; the server may still read and write their memory, so nobody else gets it for a while."""
        for one in sent:
            one.context.cancel()
            if one.slot is not None:
                self._abandoned.append(one.slot)
        self._forget(len(self._abandoned) - MAX_ABANDONED)

    def _forget(self, count: int) -> None:
        """Free so many slots, those given up longest ago first."""
        is_there = True
        for _ in range(count):
            slot = (self._abandoned or self._free).popleft()
            try:
                if is_there:
                    slot.unregister()
            except InferenceServerException:
                # a server that is gone has forgotten them all
                is_there = False
            slot.forget()

    def _failure(self, error: Exception) -> EngineError:
        status = error.status() if isinstance(error, InferenceServerException) else None
        kind = EngineError if status == "StatusCode.UNAVAILABLE" else WrongAnswerError
        return kind(f"{self.place}: {reason_of(error)}")


@dataclass(frozen=True, slots=True)
class _Sent:
    slot: SharedSlot | None
    context: Any


def _note(answers: queue.SimpleQueue[Any], number: int, result: Any, error: Any) -> None:
    answers.put((number, result, error))


def _next(answers: queue.SimpleQueue[tuple[int, Any, Any]], until_s: float) -> tuple[int, Any, Any] | None:
    """What comes next; None if nothing does until then."""
    try:
        return answers.get(timeout=max(0.0, until_s - time.monotonic()))
    except queue.Empty:
        return None


def reason_of(error: Exception) -> str:
    """Why, in one line and without addresses of the network that nobody asked for."""
    if isinstance(error, InferenceServerException):
        match error.status():
            case "StatusCode.UNAVAILABLE":
                return "nobody answers there"
            case "StatusCode.DEADLINE_EXCEEDED":
                return "no answer in time"
            case "StatusCode.UNAUTHENTICATED" | "StatusCode.PERMISSION_DENIED":
                return "the token is not accepted"
        return " ".join(str(error.message()).split())[:200]
    return " ".join(str(error).split())[:200] or type(error).__name__


def _headers(token_file: Path | None) -> Mapping[str, str]:
    """Read again at every connection, as it may have changed."""
    token = None if token_file is None else read_secret(token_file, "remote.token_file")
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _client(place: Place, ca_file: Path | None) -> Any:
    try:
        certificates = None if ca_file is None else ca_file.read_bytes()
    except OSError as error:
        raise ModelError(f"remote.ca_file {ca_file}: cannot be read ({error.strerror})") from None
    sealed = grpc.ssl_channel_credentials(root_certificates=certificates) if place.is_sealed else None
    return triton.InferenceServerClient(place.address, creds=sealed, channel_args=CHANNEL)


def _info(told: Any) -> TensorInfo:
    """What the server says of a tensor. Raises: ValueError: nothing that could be one."""
    shape = tuple(int(size) if size > 0 else None for size in told.shape)
    if told.datatype not in DTYPES or not 0 < len(shape) <= 8 or not 0 < len(told.name) <= 256:
        raise ValueError(f"a tensor {told.name[:60]!r} of type {told.datatype[:20]!r} with {len(shape)} sizes")
    return TensorInfo(told.name, shape, DTYPES[told.datatype])
