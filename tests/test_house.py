"""The rooms of the project and what may import what, read from the sources.

An import counts wherever it stands: in a function and under TYPE_CHECKING as well. Modules of other
projects that `import_module` loads by name are none of ours.
"""

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "sample", "evaluate", "create_dataset", "benchmark", "preview", "app")
LEVELS = {
    **dict.fromkeys(("conventions", "beatmaps", "models", "diffusion", "conditions"), 1),
    **dict.fromkeys(("data_loading", "checkpoint", "constraints", "viewer"), 2),
    **dict.fromkeys(("datasets", "metrics"), 3),
    **dict.fromkeys(("training", "sampling"), 4),
    **dict.fromkeys(("web", "benchmarks"), 5),
    **dict.fromkeys((*COMMANDS, "testing", "example"), 6),
}
"""A room, which is a folder or a file of the root, imports none of a higher level than its own."""
IN_THE_ROOT = {*COMMANDS, "models", "data_loading", "checkpoint"}
MAY_IMPORT_COMMANDS = {"testing.flag_tables"}  # it writes down what their parsers say
SCRIPTS = "testing"  # whose files are started by their names, and import each other by them
MOST_LEVELS = 7

Graph = Mapping[str, set[str]]


def modules_of(root: Path) -> dict[str, Path]:
    """The modules by their dotted names: files of the root and of the folders with a level."""
    folders = [root, *(root / room for room in LEVELS if (root / room).is_dir())]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    named = {".".join(file.relative_to(root).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def imported(name: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Which of `modules` a module imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            start = ".".join([*package, node.module] if node.module else package)
            parts = [f"{start}.{alias.name}" for alias in node.names]
            candidates = [part if part in modules else start for part in parts]
        else:
            continue
        for candidate in candidates:
            neighbour = f"{SCRIPTS}.{candidate}"
            if name.startswith(f"{SCRIPTS}.") and neighbour in modules:
                yield neighbour
            elif candidate in modules:
                yield candidate


def room(module: str) -> str:
    return module.partition(".")[0]


def rooms_of(graph: Graph) -> dict[str, set[str]]:
    """Which rooms each room imports; what prints the commands is at the end of no chain."""
    rooms: dict[str, set[str]] = {room(module): set() for module in graph}
    for module in graph.keys() - MAY_IMPORT_COMMANDS:
        rooms[room(module)] |= {room(other) for other in graph[module]} - {room(module)}
    return rooms


def circle(graph: Graph) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def search(path: list[str]) -> list[str]:
        for other in sorted(graph[path[-1]] - done):
            if other in path:
                return [*path[path.index(other) :], other]
            if found := search([*path, other]):
                return found
        done.add(path[-1])
        return []

    return next((found for module in graph if (found := search([module]))), [])


def longest_chain(graph: Graph) -> int:
    """How many rooms lie on top of each other, for a graph without circles."""
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in heights:
            heights[name] = 1 + max(map(height, graph[name]), default=0)
        return heights[name]

    return max(map(height, graph))


def faults(root: Path) -> list[str]:
    """What is wrong with the house, a line each."""
    modules = modules_of(root)
    strangers = [f"{m}.py: not a file of the root" for m in modules if room(m) not in LEVELS]
    in_root = {file.stem for file in root.glob("*.py")} & LEVELS.keys()
    strangers += [f"{m}.py: not a file of the root" for m in sorted(in_root - IN_THE_ROOT)]
    if strangers:
        return strangers
    graph = {name: set(imported(name, file, modules)) for name, file in modules.items()}
    found = []
    for module, others in graph.items():
        for other in sorted(others):
            if LEVELS[room(other)] > LEVELS[room(module)]:
                found.append(f"{module} imports {other} of a higher level")
            if other in COMMANDS and module not in MAY_IMPORT_COMMANDS:
                found.append(f"{module} imports the command {other}")
    rooms = rooms_of(graph)
    circles = [circle(graph), circle(rooms)]
    found += ["a circle: " + " - ".join(names) for names in circles if names]
    if not circles[1] and (levels := longest_chain(rooms)) > MOST_LEVELS:
        found.append(f"{levels} levels of imports")
    return found


def test_the_house_is_in_order() -> None:
    assert faults(ROOT) == []


def test_every_room_says_what_it_is() -> None:
    for file in ROOT.glob("*/__init__.py"):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
        assert file.parent.name in LEVELS or file.parent.name == "tests", file


def test_nothing_but_tests_imports_tests() -> None:
    for name, file in modules_of(ROOT).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(room(other) != "tests" for other in names), name


def build(root: Path, sources: Mapping[str, str]) -> Path:
    """A made-up tree."""
    for name, text in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


SOUND = {
    "beatmaps/__init__.py": "",
    "beatmaps/file.py": "import json\nfrom pathlib import Path\n",
    "beatmaps/other.py": "from beatmaps import file\n",
    "viewer/__init__.py": "",
    "viewer/scene.py": "from beatmaps.other import x\n",
    "preview.py": "import viewer.scene\n",
    "testing/tables.py": "from viewer import scene\n",
    "testing/script.py": "from tables import y\n",
    "testing/flag_tables.py": "import preview\n",
}


def test_a_sound_tree_has_no_fault(tmp_path: Path) -> None:
    assert faults(build(tmp_path, SOUND)) == []
    graph = {n: set(imported(n, f, modules_of(tmp_path))) for n, f in modules_of(tmp_path).items()}
    assert graph["testing.script"] == {"testing.tables"}
    assert graph["viewer.scene"] == {"beatmaps.other"}
    assert longest_chain(rooms_of(graph)) == 3


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"beatmaps/file.py": "from viewer import scene"}, "beatmaps.file imports viewer.scene of"),
        ({"beatmaps/file.py": "def f():\n    import viewer.scene"}, "of a higher level"),
        (
            {"beatmaps/file.py": "from beatmaps.other import x"},
            "a circle: beatmaps.other - beatmaps.file - ",
        ),
        (
            {"beatmaps/file.py": "from .other import x"},
            "a circle: beatmaps.other - beatmaps.file - ",
        ),
        (
            {
                "conventions/a.py": "import beatmaps.file",
                "beatmaps/file.py": "",
                "beatmaps/new.py": "import conventions.b",
                "conventions/b.py": "",
            },
            "a circle: beatmaps - conventions - beatmaps",
        ),
        ({"testing/script.py": "from preview import main"}, "testing.script imports the command"),
        ({"sample.py": "import preview"}, "sample imports the command preview"),
        ({"helpers.py": ""}, "helpers.py: not a file of the root"),
        ({"viewer.py": ""}, "viewer.py: not a file of the root"),
    ],
)
def test_each_fault_is_found(sources: dict[str, str], fault: str, tmp_path: Path) -> None:
    assert any(fault in line for line in faults(build(tmp_path, SOUND | sources)))


def test_too_many_levels_are_found(tmp_path: Path) -> None:
    names = ("conventions", "beatmaps", "diffusion", "constraints", "metrics", "sampling", "web")
    tower = {f"{name}/a.py": f"import {under}.a" for under, name in pairwise(names)}
    tower |= {"conventions/a.py": "", "app.py": "import web.a"}
    assert faults(build(tmp_path, tower)) == ["8 levels of imports"]
