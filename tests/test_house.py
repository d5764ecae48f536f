"""The laws of the house: rooms, arrows that only go down, names and sizes, read from the source of every file.

Each law is a function from source to the list of what breaks it, so that it is seen to find what it is about.
"""

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dropout_lab.jobs.conf import REPOSITORY

PACKAGE = "dropout_lab"
FLOORS = (  # a room may import from those below its own; rooms of one floor don't know each other
    {"cli", "dropout"},
    {"activations", "models", "modules", "jobs"},
    {"runs", "data"},
    {"train"},
    {"look", "diff", "evaluate", "fold", "explain", "dashboard"},
    {"verdict"},
    {"report"},
    {"compare"},
    {"hydra_plugins"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LINES, FUNCTION = 260, 40  # of a file; of code, in a function of train/
LIGHTNING = (  # where Lightning may be imported
    *("activations/callback", "modules/", "data/", "jobs/devices", "jobs/meeting", "jobs/processes", "runs/loggers"),
    *("runs/wandb_logger", "runs/checkpoints", "runs/continuing", "train/", "look/", "diff/", "evaluate", "fold"),
    *("verdict/", "report/"),
)
OF_A_RUN = re.compile(  # file names of a run folder
    r"(config\.yaml|status\.json|metrics\.csv|activations\.csv|look\.json|look\.png|skipped\.json|objective\.txt"
    r"|processes\.log|\.ckpt|failure-\S*\.json)$"
)
PUZZLES = {  # names that nobody guessed the meaning of
    *("misfit", "rehearsal", "trained", "rebuild", "watch", "tree", "offline", "maps", "scales", "homogeneous"),
    *("split", "unreached", "shown", "looks", "sights", "sentences"),
}

NO_ROOMS = {"helpers", "scripts"}  # in tests/: what tests share, and the tests of what is no Python file

Sources = dict[str, str]  # path in src/dropout_lab, without its suffix -> text


@pytest.fixture(scope="module")
def house() -> Sources:
    source = REPOSITORY / "src" / PACKAGE
    return {str(path.relative_to(source).with_suffix("")): path.read_text() for path in source.rglob("*.py")}


def imports(text: str) -> Iterator[str]:
    """Every module and every name that a file imports, inside functions and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file: str) -> str:
    return file.partition("/")[0]


def arrows(sources: Sources) -> Iterator[tuple[str, str]]:
    """File -> file, for each import of one of them by another; of a room's face to that."""
    for file, text in sources.items():
        for name in imports(text):
            package, *parts = name.split(".")
            if package != PACKAGE:
                continue
            paths = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
            target = next((p for path in paths for p in (path, f"{path}/__init__") if p in sources), None)
            if target is not None and target != file:
                yield file, target


def arrows_up(sources: Sources) -> list[str]:
    return sorted(
        {
            f"{file} -> {target}"
            for file, target in arrows(sources)
            if room_of(file) != room_of(target) and FLOOR[room_of(file)] <= FLOOR[room_of(target)]
        }
    )


def circles(sources: Sources) -> list[str]:
    """A circle of files, if there is one; a room's face belongs to it like any file."""
    graph: dict[str, set[str]] = {}
    for file, target in arrows(sources):
        graph.setdefault(file, set()).add(target)
    done: set[str] = set()

    def visit(file: str, way: tuple[str, ...]) -> list[str]:
        if file in way:
            return [" -> ".join([*way[way.index(file) :], file])]
        if file in done:
            return []
        found = [circle for target in sorted(graph.get(file, ())) for circle in visit(target, (*way, file))]
        done.add(file)
        return found

    return [circle for file in sorted(graph) for circle in visit(file, ())]


def foreign_libraries(sources: Sources) -> list[str]:
    """Imports of a library where it has no business: torch and numpy alone in dropout/, Triton in one file of it."""
    found = []
    for file, text in sources.items():
        for name in imports(text):
            library = name.partition(".")[0]
            if file.startswith("dropout/"):
                at_home = library in {"torch", "numpy", PACKAGE, *sys.stdlib_module_names}
                at_home = at_home or (library == "triton" and file == "dropout/philox_triton")
            else:
                at_home = library != "lightning" or file.startswith(LIGHTNING)
            if not at_home:
                found.append(f"{file} imports {name}")
    return sorted(found)


def loose_files(sources: Sources) -> list[str]:
    """Files at the top of the package that are no command a user types."""
    return sorted(
        file
        for file, text in sources.items()
        if "/" not in file and file not in ("__init__", "cli") and 'if __name__ == "__main__":' not in text
    )


def shadowed(sources: Sources) -> list[str]:
    """Names that the face of a room binds to something else than the file of that name."""
    found = []
    for file, text in sources.items():
        if not file.endswith("__init__"):
            continue
        room = file.removesuffix("__init__")
        inside = {other.removeprefix(room).partition("/")[0] for other in sources if other.startswith(room)}
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound = {node.name}
            elif isinstance(node, ast.ImportFrom) and node.module != f"{PACKAGE}.{room.strip('/').replace('/', '.')}":
                bound = {alias.asname or alias.name for alias in node.names}
            else:
                bound = set()
            found += [f"{file}: {name}" for name in sorted(bound & inside)]
    return found


def run_files_named(sources: Sources) -> list[str]:
    """Names of files of a run folder outside runs/, but in docstrings."""
    found = []
    for file, source in sources.items():
        if file.startswith("runs/"):
            continue
        tree = ast.parse(source)
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in documents else None
            if isinstance(text, str) and (text == "checkpoints" or ("\n" not in text and OF_A_RUN.search(text))):
                found.append(f"{file}:{node.lineno}: {text}")
    return sorted(found)


def modules_as_text(sources: Sources) -> list[str]:
    """Names of this package's modules kept as text, but for those that a folder may have in its configuration."""
    dotted = re.compile(rf"{PACKAGE}(\.\w+)+$")
    return sorted(
        f"{file}: {node.value}"
        for file, text in sources.items()
        if file not in ("jobs/allowed", "runs/old_targets")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and dotted.match(node.value)
    )


def private_abroad(sources: Sources) -> list[str]:
    """Private names that another file imports."""
    return sorted(
        f"{file} imports {name}"
        for file, text in sources.items()
        for name in imports(text)
        if name.startswith(f"{PACKAGE}.") and name.rpartition(".")[2].startswith("_") and not name.endswith("__main__")
    )


def puzzling(sources: Sources) -> list[str]:
    """Files, classes and public functions with names that had to be looked up."""
    found = [file for file in sources if file.rpartition("/")[2] in PUZZLES]
    for file, text in sources.items():
        named = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        found += [f"{file}: {name}" for name in named if name.lower() in PUZZLES - {"split"}]
    return sorted(found)


def too_long(sources: Sources) -> list[str]:
    """Files, and functions of train/, with more lines than one reads in a sitting."""
    found = [file for file, text in sources.items() if text.count("\n") > LINES]
    for file, text in sources.items():
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)) if file.startswith("train/") else ():
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if isinstance(node.body[0], ast.Expr) else node.body
                code = [line for line in lines[body[0].lineno - 1 : node.end_lineno] if line.strip()] if body else []
                if len(code) > FUNCTION:
                    found.append(f"{file}: {node.name}")
    return sorted(found)


BEGINS_ELSEWHERE = re.compile(
    r"(The same\b|As (above|for)\b|That of\b|Those (of|that)\b|It\b|They\b|Of (this|these|it)\b)"
)


def not_understood_alone(sources: Sources) -> list[str]:
    """Docstrings whose first line has no subject, or ends in the middle of a sentence."""
    found = []
    for file, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first = (ast.get_docstring(node) or "x.").splitlines()[0]
                if BEGINS_ELSEWHERE.match(first):
                    found.append(f"{file}: {getattr(node, 'name', 'file')}: {first}")
    return sorted(found)


def without_twin(sources: Sources) -> list[str]:
    """Files without tests of their own, and tests in a room that are those of no file in it.

    Tests of several files lie at the top of tests/; a room's face hands on and has none.
    """
    tests = {file for file in sources if file.startswith("tests/")}
    twins = {}
    for file in sources.keys() - tests:
        room, _, name = f"tests/{file}".rpartition("/")
        if name != "__init__":
            twins[f"{room}/test_{name.strip('_')}"] = file
    in_rooms = {test for test in tests if test.count("/") > 1 and test.split("/")[1] not in NO_ROOMS}
    strangers = {test for test in in_rooms - twins.keys() if "/test_" in test}
    return sorted([*(twins[twin] for twin in twins.keys() - tests), *strangers])


def test_arrows_between_rooms_go_down_only(house):
    assert {room_of(file) for file in house} - {"__init__"} <= FLOOR.keys()
    assert arrows_up({**house, "__init__": ""}) == []
    assert len([*arrows(house)]) > 300


def test_no_file_imports_itself_by_way_of_others(house):
    assert circles(house) == []


def test_dropout_is_pure_torch_and_lightning_is_imported_where_it_belongs(house):
    assert foreign_libraries(house) == []


def test_a_file_at_the_top_is_a_command(house):
    assert loose_files(house) == []


def test_no_module_is_hidden_by_a_function_of_its_name(house):
    assert shadowed(house) == []


def test_file_names_of_a_run_folder_stand_in_runs_alone(house):
    assert run_files_named(house) == []


def test_modules_are_imported_and_not_named_in_text(house):
    assert modules_as_text(house) == []


def test_private_names_stay_in_their_file(house):
    assert private_abroad(house) == []


def test_names_say_what_they_are(house):
    assert puzzling(house) == []


def test_files_and_functions_are_read_in_a_sitting(house):
    assert too_long(house) == []


def test_the_first_line_of_a_docstring_is_understood_alone(house):
    assert not_understood_alone(house) == []


def test_each_file_has_a_twin_among_the_tests(house):
    tests, plugins = REPOSITORY / "tests", REPOSITORY / "src" / "hydra_plugins"
    beside = {str(path.relative_to(tests.parent).with_suffix("")): "" for path in tests.rglob("*.py")}
    beside |= {f"hydra_plugins/{path.stem}": "" for path in plugins.glob("*.py")}
    assert without_twin(house | beside) == []


def test_plugins_are_above_the_package(house):
    """Hydra finds them by itself; nothing in the package imports them."""
    assert not [name for text in house.values() for name in imports(text) if name.startswith("hydra_plugins")]


BROKEN = [  # what breaks a law, and which
    (arrows_up, {"dropout/layer": "def f():\n    from dropout_lab.runs import read", "runs/read": ""}),
    (arrows_up, {"data/module": "import dropout_lab.runs.read", "runs/read": ""}),
    (arrows_up, {"jobs/plan": "if TYPE_CHECKING:\n    from dropout_lab.train.job import run", "train/job": ""}),
    (circles, {"runs/a": "from dropout_lab.runs.b import x", "runs/b": "def f():\n    import dropout_lab.runs.a"}),
    (circles, {"runs/__init__": "from dropout_lab.runs.a import x", "runs/a": "from dropout_lab.runs import x"}),
    (foreign_libraries, {"dropout/keys": "import lightning"}),
    (foreign_libraries, {"dropout/keys": "def f():\n    import triton"}),
    (foreign_libraries, {"dropout/keys": "def f():\n    from omegaconf import OmegaConf"}),
    (foreign_libraries, {"activations/meter": "from lightning.pytorch import Callback"}),
    (loose_files, {"timing": "x = 1", "fold": 'if __name__ == "__main__":\n    main()', "cli": ""}),
    (shadowed, {"dropout/__init__": "from dropout_lab.dropout.folding.fold import fold", "dropout/fold": ""}),
    (shadowed, {"runs/__init__": "def read():\n    pass", "runs/read": ""}),
    (run_files_named, {"report/page": '"""Reads metrics.csv."""\nopen("metrics.csv")'}),
    (run_files_named, {"report/page": 'folder / "checkpoints"'}),
    (modules_as_text, {"jobs/forkserver": 'PRELOAD = ["dropout_lab.runs.loggers"]'}),
    (private_abroad, {"runs/read": "from dropout_lab.runs.folder import _mapping"}),
    (puzzling, {"jobs/misfit": ""}),
    (puzzling, {"look/views": "class Sights:\n    pass"}),
    (too_long, {"report/page": "x = 1\n" * (LINES + 1)}),
    (too_long, {"train/job": "def train():\n    '''Train.'''\n" + "    x = 1\n" * (FUNCTION + 1)}),
    (without_twin, {"runs/read": "", "tests/test_read": ""}),
    (without_twin, {"verdict/__main__": "", "verdict/__init__": ""}),
    (without_twin, {"fold": "", "tests/test_fold": "", "tests/runs/test_fold": "", "tests/runs/conftest": ""}),
    (not_understood_alone, {"data/sets": "class B:\n    '''The same with a hundred classes.'''"}),
]


@pytest.mark.parametrize(("law", "sources"), BROKEN, ids=lambda of: getattr(of, "__name__", ""))
def test_a_broken_law_is_found(law, sources):
    assert len(law(sources)) == 1


def test_floors_are_in_order():
    assert all(low.isdisjoint(high) for low, high in pairwise(FLOORS))
    assert Path(REPOSITORY / "src" / PACKAGE).is_dir()
