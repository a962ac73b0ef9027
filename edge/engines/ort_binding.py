"""ONNX Runtime with its inputs and outputs on a device: memory is taken once per batch size and used again.

Shape letters: B batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from edge.interfaces import TensorInfo
    from edge.types import Array

# each holds an input and the outputs of one batch size on the device
MAX_BINDINGS = 8


class DeviceRunner:
    """Runs a session on one device; the batch sizes used last keep their memory."""

    def __init__(
        self, session: Any, source: TensorInfo, outputs: Sequence[TensorInfo], device: str, index: int = 0
    ) -> None:
        """Args: the session, its only input, its outputs, where they shall lie (``cuda``, ``cpu``) and on which one."""
        self._session = session
        self._source = source
        self._names = [info.name for info in outputs]
        # an output of unknown size gets memory of its own in every run
        self._unsized = [info.name for info in outputs if None in info.shape[1:]]
        self._device = device
        self._index = index
        self._bindings: OrderedDict[tuple[tuple[int, ...], str], tuple[Any, Any]] = OrderedDict()

    def run(self, tensor: Array) -> Mapping[str, Array]:
        """Run one batch.

        Args:
            tensor: the model's input, B frames.

        Returns:
            Output name → array, B first; valid until the next run of this batch size.

        Raises:
            RuntimeError: the device, or the tensor is not what the model takes. ONNX Runtime's own errors are of
                several classes; see ``edge.engines.ort``.
        """
        value, binding = self._binding(tensor)
        value.update_inplace(np.ascontiguousarray(tensor))
        for name in self._unsized:
            binding.bind_output(name, self._device, self._index)
        # the copy runs on another stream than the session
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return dict(zip(self._names, binding.copy_outputs_to_cpu(), strict=True))

    def __len__(self) -> int:
        """Number of batch sizes whose memory is kept."""
        return len(self._bindings)

    def close(self) -> None:
        self._bindings.clear()

    def _binding(self, tensor: Array) -> tuple[Any, Any]:
        # ONNX Runtime does not look at the type of what is copied into a value
        key = (tensor.shape, str(tensor.dtype))
        found = self._bindings.get(key)
        if found is None:
            found = self._new_binding(tensor)
            while len(self._bindings) >= MAX_BINDINGS:
                self._bindings.popitem(last=False)
            self._bindings[key] = found
        self._bindings.move_to_end(key)
        return found

    def _new_binding(self, tensor: Array) -> tuple[Any, Any]:
        # a value on the CPU would share the caller's memory
        value = ort.OrtValue.ortvalue_from_numpy(np.array(tensor, order="C"), self._device, self._index)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._source.name, value)
        for name in self._names:
            binding.bind_output(name, self._device, self._index)
        return value, binding
