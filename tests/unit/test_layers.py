"""Imports point one way, implementations do not know each other."""

from __future__ import annotations

import ast
import gc
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# lowest first: a folder (or a file at edge/) imports from itself and from those before it
ORDER = (
    *(
        "compiled",
        "lazy",
        "errors",
        "metrics",
        "masks",
        "pictures",
        "types",
        "files",
        "addresses",
        "net",
        "onvif",
        "threads",
        "interfaces",
        "packages",
    ),
    *("boxes", "config", "models", "trackers", "analytics", "engines", "heads", "model", "second_stage"),
    *("scene", "video"),
    *("sources", "result_json", "overlay", "recording", "watchlog", "events", "trackstore", "night", "users"),
    *("server", "sinks"),
    *("pipeline", "archive", "cliptests", "accuracy", "diagnose", "daemon"),
    *("chaos", "bench", "console", "commands", "cli"),
)
# each is one way among others to do a thing, and knows none of the others
IMPLEMENTATIONS = ("sources", "engines", "heads", "trackers", "analytics", "sinks", "scene")
# the live page's sink knows the page's board, and the synthetic source the scene: that is what they are for
ALLOWED = {("edge/sinks/live.py", "server"), ("edge/sources/synthetic.py", "scene")}
MAX_BODY_P90_LINES = 20
MAX_IMPORT_CHAIN = 10
MAX_FILES_AT_THE_TOP = 12


@pytest.fixture(scope="module", autouse=True)
def trees_are_no_garbage() -> Iterator[None]:
    """A million objects that all stay until the end of this file: the collector would look at them again and again."""
    gc.disable()
    yield
    tree_of.cache_clear()
    statements_of.cache_clear()
    gc.enable()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def statements_of(path: Path) -> list[ast.AST]:
    """All statements of a file with the handlers of its errors, those of functions and classes included."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        found.append(node)
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            waiting += getattr(node, block, ())
    return found


@cache
def imports_of(path: Path) -> list[str]:
    found = []
    for node in statements_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def folder_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def edge_files() -> list[Path]:
    return sorted((ROOT / "edge").rglob("*.py"))


def test_imports_point_down() -> None:
    assert not [fault for path in edge_files() for fault in wrong_imports(path)]


def wrong_imports(path: Path) -> Iterator[str]:
    name = str(path.relative_to(ROOT))
    own = folder_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for other in imports_of(path):
        if not other.startswith("edge.") or own == "__init__" or folder_of(other) == own:
            continue
        if ORDER.index(folder_of(other)) >= ORDER.index(own):
            yield f"{name} imports {other}, which lies above it"
        if own in IMPLEMENTATIONS and folder_of(other) in IMPLEMENTATIONS and (name, folder_of(other)) not in ALLOWED:
            yield f"{name} imports the implementation {other}"


def test_few_files_lie_at_the_top() -> None:
    assert len(list((ROOT / "edge").glob("*.py"))) <= MAX_FILES_AT_THE_TOP


def import_chains() -> dict[str, list[str]]:
    """Module of edge -> the longest chain of modules that its import runs, itself first."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in edge_files()}
    chains: dict[str, list[str]] = {}

    def chain(module: str, above: tuple[str, ...]) -> list[str]:
        assert module not in above, f"a circle: {' -> '.join((*above, module))}"
        if module not in chains:
            below = [other for other in imports_at_load(modules[module]) if other in modules and other != module]
            chains[module] = [module, *max((chain(other, (*above, module)) for other in below), key=len, default=[])]
        return chains[module]

    for module in modules:
        chain(module, ())
    return chains


def imports_at_load(path: Path) -> set[str]:
    """The modules of edge that importing this file imports: not those of functions, and not those for types alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            homes = homes_of(node.module)
            found |= {node.module, *(f"{node.module}.{homes.get(alias.name, alias.name)}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return {module for module in found if module.startswith("edge.")}


@cache
def homes_of(package: str) -> dict[str, str]:
    """Name → module, of what a package hands on: to import the name is to import the module."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    tree = tree_of(path) if path.is_file() else ast.Module([], [])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    tables = [call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "lazily"]
    homes: dict[str, str] = ast.literal_eval(tables[0]) if tables and isinstance(tables[0], ast.Dict) else {}
    return homes


def test_what_packages_hand_on_is_typed_and_there() -> None:
    inner = [path for path in edge_files() if path.name == "__init__.py" and path.parent != ROOT / "edge"]
    faces = [path for path in inner if "lazily(" in path.read_text()]
    assert len(faces) >= 10
    for path in faces:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        module = importlib.import_module(package)
        typed = {
            alias.name: str(node.module).removeprefix(f"{package}.")
            for node in statements_of(path)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}.")
            for alias in node.names
        }
        assert typed == homes_of(package), package
        assert all(hasattr(module, name) for name in module.__all__), package
        with pytest.raises(AttributeError):
            _ = module.nothing_of_this_name


def test_no_import_chain_is_long_and_none_is_a_circle() -> None:
    longest = max(import_chains().values(), key=len)
    assert len(longest) <= MAX_IMPORT_CHAIN, " -> ".join(longest)


def test_edge_never_imports_the_toolchain_outside_of_commands() -> None:
    for path in edge_files():
        if "commands" in path.parts:
            continue
        heavy = [module for module in imports_of(path) if module.split(".")[0] in ("export", "calib", "torch")]
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_nine_of_ten_functions_are_short() -> None:
    for folder in ("edge", "export", "calib"):
        sizes = sorted(
            body_lines(node)
            for path in (ROOT / folder).rglob("*.py")
            for node in statements_of(path)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        assert sizes[int(len(sizes) * 0.9)] <= MAX_BODY_P90_LINES, folder


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_only_the_worker_catches_everything() -> None:
    broad = []
    for path in (path for folder in ("edge", "export", "calib") for path in (ROOT / folder).rglob("*.py")):
        for node in statements_of(path):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            ):
                broad.append(str(path.relative_to(ROOT)))
    assert broad == ["edge/threads/worker.py"]


def _is_text_by_locale(call: ast.Call) -> bool:
    if any(keyword.arg == "encoding" or keyword.arg is None for keyword in call.keywords):
        return False
    if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "av":
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [value for value in call.args if isinstance(value, ast.Constant) and value.value in ("r", "w", "a", "x")]
    is_read = name == "read_text" and not call.args
    return is_read or (name == "write_text" and len(call.args) == 1) or (name == "open" and bool(modes))


def test_text_is_utf_8_whatever_the_locale_is() -> None:
    found = []
    for path in (path for folder in ("edge", "export", "calib") for path in (ROOT / folder).rglob("*.py")):
        # no call of a name that the text does not hold
        if not re.search(r"\b(open|read_text|write_text)\(", path.read_text(encoding="utf-8")):
            continue
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if _is_text_by_locale(call)]
    assert not found, found
