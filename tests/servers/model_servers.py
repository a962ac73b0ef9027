"""Model servers as tests run them: Triton as nvidia-pytriton brings it, and MLServer; both with ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import tritonclient.grpc as triton
from camera_rig import free_port
from needs import MODEL_SERVERS, need
from tritonclient.utils import InferenceServerException

from edge.engines.kserve_link import CHANNEL
from edge.model import find_manifest
from export.repository import ServerOptions, write_repository

READY_S = 60.0
# MLServer's own runtimes are for other libraries
RUNTIME = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        values = self.session.run(None, {payload.inputs[0].name: NumpyCodec.decode_input(payload.inputs[0])})
        names = [one.name for one in self.session.get_outputs()]
        outputs = [NumpyCodec.encode_output(*one) for one in zip(names, values)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""
MLSERVER_TYPES = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32", "int64": "INT64"}


class ModelServer:
    """A server process that can be killed and started again at the same port."""

    def __init__(self, folder: Path, model: Path, name: str = "street") -> None:
        """Args: where its files go, the model, its name there. It is not started."""
        self.python = Path(need(MODEL_SERVERS))
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.url = f"grpc://127.0.0.1:{self.port}/{name}"
        self._process: subprocess.Popen[bytes] | None = None
        self.arguments, self.environment = self.prepare(model)

    def prepare(self, model: Path) -> tuple[list[str], dict[str, str]]:
        """Write its files; its command line, and what its environment has besides ours."""
        raise NotImplementedError

    def start(self, *, is_waited_for: bool = True) -> None:
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            self.arguments,
            env={**os.environ, **self.environment},
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        if is_waited_for:
            self.wait()

    def wait(self) -> None:
        """Until its model is ready."""
        until_s = time.monotonic() + READY_S
        while not self.is_ready():
            assert self._process is not None
            told = (self.folder / "server.log").read_text()[-3000:]
            assert self._process.poll() is None, told
            assert time.monotonic() < until_s, told
            time.sleep(0.02)

    def is_ready(self) -> bool:
        client = triton.InferenceServerClient(f"127.0.0.1:{self.port}", channel_args=CHANNEL)
        try:
            return bool(client.is_model_ready(self.name, client_timeout=1.0))
        except InferenceServerException:
            return False
        finally:
            client.close()

    def signal(self, number: int) -> None:
        """To it and all its children."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """As a power cut does it."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        self._process = None

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()


class Triton(ModelServer):
    """Triton with its Python backend, over the repository that ``edge export --model-repository`` writes."""

    def prepare(self, model: Path) -> tuple[list[str], dict[str, str]]:
        repository = self.folder / "repository"
        write_repository(model, repository, self.name, ServerOptions("python", max_batch=8, device="cpu", queue_us=0))
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = self.python.parents[1] / "lib" / version / "site-packages"
        inside = next(packages.glob("pytriton/tritonserver"))
        backend = self.folder / "backends" / "python"
        shutil.copytree(inside / "backends" / "python", backend)
        stub = inside / "python_backend_stubs" / version.removeprefix("python") / "triton_python_backend_stub"
        shutil.copy(stub, backend)
        (backend / "triton_python_backend_stub").chmod(0o755)
        # one shared memory of its own: those of killed servers must not be taken for it
        prefix = f"triton-{uuid.uuid4().hex[:12]}"
        arguments = [
            str(inside / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backend.parent}",
            f"--grpc-port={self.port}",
            "--grpc-address=127.0.0.1",
            "--allow-http=false",
            "--allow-metrics=false",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--log-info=false",
        ]
        libraries = str(packages / "nvidia_pytriton.libs")
        return arguments, {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(packages)}


class MlServer(ModelServer):
    """MLServer with a runtime of a few lines."""

    def prepare(self, model: Path) -> tuple[list[str], dict[str, str]]:
        from edge.engines import open_engine

        (self.folder / "onnx_runtime.py").write_text(RUNTIME)
        engine = open_engine(model, find_manifest(model), kind="ort", threads=1)
        told = {"inputs": engine.inputs, "outputs": engine.outputs}
        engine.close()
        tensors = {
            kind: [
                {"name": one.name, "datatype": MLSERVER_TYPES[one.dtype], "shape": [size or -1 for size in one.shape]}
                for one in several
            ]
            for kind, several in told.items()
        }
        facts = {"name": self.name, "implementation": "onnx_runtime.OnnxModel", "parameters": {"uri": str(model)}}
        (self.folder / "model-settings.json").write_text(json.dumps({**facts, **tensors}))
        ports = {"grpc_port": self.port, "http_port": free_port(), "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "parallel_workers": 0, "grpc_max_message_length": 64 << 20, **ports}
        (self.folder / "settings.json").write_text(json.dumps(settings))
        return [str(self.python.with_name("mlserver")), "start", str(self.folder)], {"PYTHONPATH": str(self.folder)}
