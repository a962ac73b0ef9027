"""Imports point one way, implementations do not know each other, and the light runtime stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPLEMENTATIONS = ("sources", "engines", "heads", "trackers", "analytics", "sinks", "scene", "cuda")
# lowest first; a module may import from its own layer and from those below. "swap" stands for all of edge/swap that
# is not named more closely elsewhere.
LAYERS = [
    {"errors", "types", "files", "uris", "class_names", "backoff", "srt", "metrics", "processor_time"},
    {"daemon.notify", "daemon.process_facts", "daemon.gpu_stats", "daemon.jetpack", "daemon.explain"},
    {
        "secrets",
        "daemon.settings",
        "server.access",
        "server.limits",
        "server.schema",
        "server.small_body",
        "config_overrides",
    },
    {"interfaces", "boxes", "tiles", "manifest", "worker", "handoff", "capture.process", "capture.ring", "mot_text"},
    {"ending"},
    {"logs", "server.client", "config_migrations", "config_messages", "swap.agreement", "swap.class_mapping"},
    {"events.settings", "recording.settings", "capture.settings", "trackers.settings", "analytics.settings"},
    {"config", "inspect.onnx_graph", "inspect.card", "jsonl_record", "overlay.palette"},
    {"events", "recording"},
    {"webrtc"},
    {"capture.picture", "capture.health", "capture.motion_gate"},
    {"trt.callbacks", "trt.api", "trt.plan_header", "trt.runtime", "analytics.shapes"},
    {"inspect.propose", "trt.preflight", "preprocess", "overlay.text", "overlay.shapes", *IMPLEMENTATIONS, "models"},
    {"overlay.overlay", "model", "server.live", "daemon.doctor", "second_stage", "follower"},
    {"lane"},
    {"daemon.watchdog", "daemon.governor", "daemon.credentials", "server.operate", "swap.shadow"},
    {"run_frames"},
    {"capture", "inference", "output", "server"},
    {"swap"},
    {"outlets", "memory_plan"},
    {"crop_models"},
    {"assembly"},
    {"stream_workers"},
    {"pipeline"},
    {"daemon.reload", "daemon.remembered", "daemon.operations"},
    {"daemon"},
    {"capacity", "measure", "measure_picture", "chaos", "replay"},
    {"commands"},
    {"cli"},
]
# sinks that show pictures on the live page know the board; that is their job
ALLOWED = {("edge/sinks/live.py", "server"), ("edge/engines/trt.py", "cuda"), ("edge/sources/synthetic.py", "scene")}


def layer_of(module: str) -> int:
    """Of ``edge.swap.trial``: the layer that names ``swap.trial``, else the one that names ``swap``."""
    names = module.split(".")[1:]
    for part in (".".join(names[:2]), names[0]):
        for level, members in enumerate(LAYERS):
            if part in members:
                return level
    raise LookupError(f"no layer names {module}")


def imports_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def folder_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def is_settings(module: str) -> bool:
    """``edge.trackers.settings`` is pure data and belongs to the layer of the configuration."""
    return module.rsplit(".", maxsplit=1)[-1] in ("settings", "shapes")


def edge_files() -> list[Path]:
    return sorted((ROOT / "edge").rglob("*.py"))


@pytest.mark.parametrize("path", edge_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = folder_of(module)
    if path.name == "__init__.py":
        assert not imports_of(path), f"{name} imports something; a folder's first file only says what it is for"
        return
    for other in imports_of(path):
        if not other.startswith("edge.") or (name, folder_of(other)) in ALLOWED:
            continue
        assert layer_of(other) <= layer_of(module), f"{name} imports {other}, which lies above it"
        if own in IMPLEMENTATIONS and folder_of(other) in IMPLEMENTATIONS and not is_settings(other):
            assert own == folder_of(other), f"{name} imports the implementation {other}"


def test_edge_never_imports_the_toolchain_outside_of_commands() -> None:
    for path in edge_files():
        if "commands" in path.parts:
            continue
        heavy = [module for module in imports_of(path) if module.split(".")[0] in ("export", "calib", "torch")]
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_every_source_file_is_at_most_300_lines() -> None:
    files = [path for folder in ("edge", "export", "calib") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): count for path in files if (count := len(path.read_text().splitlines())) > 300}
    assert not long


def test_only_the_worker_catches_everything() -> None:
    broad = []
    for path in (path for folder in ("edge", "export", "calib") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            ):
                broad.append(str(path.relative_to(ROOT)))
    assert broad == ["edge/worker.py"]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_import_edge_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import edge; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.15


def test_a_cpu_run_imports_no_toolchain_and_no_gpu_library(tmp_path: Path) -> None:
    code = f"""
import sys
from edge.cli import run_command
model = "edge/models/street-nano-int8.onnx"
source = "synthetic://street?seed=3&size=320x180&frames=5"
assert run_command(["--quiet", "run", "--source", source, "--model", model, "--sink", "jsonl:{tmp_path}/o.jsonl"]) == 0
heavy = ("torch", "tensorrt", "tensorrt_rtx", "pycuda", "export", "calib", "openvino")
print([name for name in heavy if name in sys.modules])
"""
    assert run_python(code).splitlines()[-1] == "[]"
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 5
