"""Imports point one way, implementations do not know each other, and the light runtime stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPLEMENTATIONS = ("sources", "engines", "heads", "trackers", "analytics", "sinks", "scene", "cuda")
# lowest first; a module may import from its own layer and from those below
LAYERS = [
    {"errors", "types", "files", "uris", "class_names", "backoff", "metrics", "notify", "process_facts", "gpu_stats"},
    {"secrets", "daemon_settings", "server_access", "server_limits", "server_schema", "explain", "config_overrides"},
    {"interfaces", "boxes", "manifest", "worker", "handoff", "ring", "mot_text"},
    {"logs", "api_client", "config_migrations", "agreement", "class_mapping"},
    {"event_settings", "record_settings", "camera_settings"},
    {"config", "onnx_graph", "card", "jsonl_record", "palette", "settings"},
    {"event_schema", "retention", "outbox_file", "outbox", "delivery", "event_desk"},
    {"video_encoder", "restream_child", "fragments", "recording_index", "recording", "recorder"},
    {"picture", "camera_health", "motion_gate"},
    {"trt_callbacks", "trt_api", "plan_header", "trt_runtime", "shapes"},
    {"propose", "preflight", "preprocess", "overlay_text", "overlay_shapes", *IMPLEMENTATIONS, "models"},
    {"overlay", "model", "live", "doctor", "follower"},
    {"lane"},
    {"watchdog", "governor", "credentials", "server_operate", "shadow"},
    {
        "capture",
        "inference",
        "output",
        "capture_child",
        "server_guard",
        "server_metrics",
        "server_push",
        "server_app",
        "server",
    },
    {"swap", "swap_trial"},
    {"outlets", "memory_plan"},
    {"assembly"},
    {"pipeline"},
    {"reload", "remembered", "operations"},
    {"service", "serving"},
    {"measure", "chaos", "replay"},
    {"commands"},
    {"cli"},
]
# sinks that show pictures on the live page know the board; that is their job
ALLOWED = {("edge/sinks/live.py", "live"), ("edge/engines/trt.py", "cuda"), ("edge/sources/synthetic.py", "scene")}


def layer_of(part: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if part in names)


def imports_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def part_of(module: str) -> str:
    """``edge.trackers.settings`` is pure settings and belongs to the layer of the configuration."""
    names = module.split(".")
    return names[-1] if names[-1] in ("settings", "shapes") else names[1] if len(names) > 1 else ""


def edge_files() -> list[Path]:
    return sorted((ROOT / "edge").rglob("*.py"))


@pytest.mark.parametrize("path", edge_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    own = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if not own or own == "__init__":
        return
    for module in imports_of(path):
        other = part_of(module) if module.startswith("edge.") else ""
        if not other or (name, other) in ALLOWED:
            continue
        assert layer_of(other) <= layer_of(own), f"{name} imports edge.{other}, which lies above it"
        if own in IMPLEMENTATIONS and other in IMPLEMENTATIONS:
            assert own == other, f"{name} imports the implementation edge.{other}"


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
