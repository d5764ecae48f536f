"""The arguments that a ``_target_`` takes, read from its source: nothing is imported, so a typo is answered at once.

What source does not tell (C, a module's ``__getattr__``, patches, a name that both branches of an ``if`` define) is not
known. Decorators are taken to hand on what they are given.
"""

import ast
import importlib.util
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef
Origin = ast.AST | tuple[str, str] | None  # what a name is bound to: code, (module, name in it), or nobody knows
Found = tuple[str, Definition | None]  # a module and a definition in it; None: the module itself
NOTHING = frozenset[str](), False


@cache
def arguments(target: str) -> frozenset[str]:
    """Names of the arguments that a class or function takes by keyword; none where its source does not tell.

    Where a class has no ``__init__``, or one that hands others on, those of its bases are among them.

    Args:
        target: dotted name, each part but the last one that of a package or module.
    """
    module, _, name = target.rpartition(".")
    found = _lookup(module, name)
    if not found or not isinstance(found[1], ast.ClassDef):
        return _taken(found[1], 0)[0] if found else frozenset()
    try:
        order = _stand_in(found, {}).__mro__
    except TypeError:  # bases that have no order
        return frozenset()
    names = frozenset[str]()
    for each in order:
        own, hands_on = getattr(each, "taken", NOTHING)
        names |= own
        if not hands_on:
            break
    return names


@cache
def ignores_others(target: str) -> bool:
    """Whether a class or function takes any other arguments by name, and does nothing with them.

    Args:
        target: dotted name, as for `arguments`.
    """
    module, _, name = target.rpartition(".")
    found = _lookup(module, name)
    if not found or not isinstance(found[1], ast.ClassDef):
        return found is not None and _use_of_others(found[1]) == "none"
    try:
        order = _stand_in(found, {}).__mro__
    except TypeError:
        return False
    uses = [_use_of_others(maker) for each in order if (maker := getattr(each, "maker", None))]
    return next((use for use in uses if use != "handed on"), "other") == "none"


def _use_of_others(function: Origin) -> str:
    """What a function does with arguments that it does not name: "none", "handed on" to a base only, or "other"."""
    if not isinstance(function, ast.FunctionDef) or function.args.kwarg is None:
        return "other"  # it refuses them
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    name = function.args.kwarg.arg
    used = sum(isinstance(node, ast.Name) and node.id == name for node in nodes)
    to_base = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".__init__")]
    handed = [each.value for call in to_base for each in call.keywords if each.arg is None]
    if used == 0:
        return "none"
    return "handed on" if used == sum(ast.unparse(value) == name for value in handed) else "other"


class _Class:
    """What stands in for a class, with stand-ins of its bases: Python puts them in order."""

    maker: Origin = None  # its __init__, or __new__
    taken = NOTHING  # by its __init__; where it has none, that of the next in order is found
    fields = frozenset[str]()  # of a dataclass


def _stand_in(found: Found | None, known: dict[ast.ClassDef, type[_Class]]) -> type[_Class]:
    unknown = type("Unknown", (_Class,), {"taken": NOTHING})
    if not found or not isinstance(found[1], ast.ClassDef):
        return unknown
    module, node = found[0], found[1]
    if node not in known:
        known[node] = unknown  # to a class that seems to derive from itself
        bases = tuple(_stand_in(_resolve(module, base), known) for base in node.bases)
        made: type[_Class] = type(node.name, bases or (_Class,), {})
        own = dict(_bindings(node.body, module))
        if any(re.match(r"(\w+\.)*dataclass\b(?!.*\binit=False)", ast.unparse(each)) for each in node.decorator_list):
            made.fields = frozenset(_fields(node)).union(*(base.fields for base in bases))
            made.taken = made.fields, False
        if not own.keys().isdisjoint({"__init__", "__new__"}):
            made.maker = own.get("__init__", own.get("__new__"))
            made.taken = _taken(made.maker, 1)
        known[node] = made
    return known[node]


def _taken(function: Origin, bound: int) -> tuple[frozenset[str], bool]:
    """What a function takes by name after the arguments that are bound, and whether it takes any others, too."""
    if not isinstance(function, ast.FunctionDef):
        return NOTHING
    given = function.args
    by_name = [*given.args[max(bound - len(given.posonlyargs), 0) :], *given.kwonlyargs]
    return frozenset(each.arg for each in by_name), given.kwarg is not None


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """The fields of a dataclass that its ``__init__`` takes."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and not re.search(r"\b(ClassVar|KW_ONLY|init=False)\b", ast.unparse(each)):
            yield ast.unparse(each.target)


def _lookup(module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | None:
    """The definition of a module's name, followed through imports, else the module below that has the name."""
    if (module, name) not in seen:
        seen |= {(module, name)}
        for bound, origin in reversed(_names(module)):
            if bound == name:
                return _resolve(module, origin, seen)
            if bound == "*" and isinstance(origin, tuple):
                found = _lookup(origin[0], name, seen) if _exports(origin[0], name) else None
                if found or not _names(origin[0]):  # without source it may bind any name
                    return found
    below = f"{module}.{name}".lstrip(".")
    return (below, None) if _place(below) != (None, []) else None


def _resolve(module: str, origin: Origin, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | None:
    """The definition that an import or an expression in a module stands for."""
    match origin:
        case ast.ClassDef() | ast.FunctionDef():
            return module, origin
        case (str(other), str(name)):
            return _lookup(other, name, seen)
        case ast.Name(id=name):
            return _lookup(module, name, seen)
        case ast.Attribute(value=value, attr=name):
            owner = _resolve(module, value, seen)
            return _lookup(owner[0], name, seen) if owner and owner[1] is None else None
        case ast.Subscript(value=value):  # Base[T]
            return _resolve(module, value, seen)
    return None


def _exports(module: str, name: str) -> bool:
    """Whether ``from module import *`` binds a name."""
    declared = dict(_names(module)).get("__all__")
    if isinstance(declared, ast.List | ast.Tuple):
        return any(isinstance(each, ast.Constant) and each.value == name for each in declared.elts)
    return not name.startswith("_")


@cache
def _names(module: str) -> list[tuple[str, Origin]]:
    """Each name that a module binds, in order, and to what; nothing where it has no source that can be read."""
    file, folders = _place(module)
    try:
        with warnings.catch_warnings(action="ignore"):  # about other people's source
            body = ast.parse(file.read_bytes()).body if file else []
        return list(_bindings(body, module if folders else module.rpartition(".")[0]))
    except (OSError, SyntaxError, ValueError, ImportError):
        return []


def _bindings(body: list[ast.stmt], package: str) -> Iterator[tuple[str, Origin]]:
    """Each name that statements bind, and to what."""
    for statement in body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, statement
            case ast.Import(names=names):
                for each in names:
                    path = each.name if each.asname else each.name.partition(".")[0]
                    above, _, last = path.rpartition(".")
                    yield each.asname or last, (above, last)
            case ast.ImportFrom(module=source, names=names, level=level):
                origin = importlib.util.resolve_name("." * level + (source or ""), package)
                yield from ((each.asname or each.name, (origin, each.name)) for each in names)
            case ast.Assign(targets=targets, value=value):
                yield from ((each.id, value) for each in targets if isinstance(each, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.If(body=then, orelse=otherwise):
                one, other = list(_bindings(then, package)), list(_bindings(otherwise, package))
                yield from [*one, *other]
                yield from ((name, None) for name in (dict(one).keys() & dict(other).keys()) - {"*"})
            case ast.Try(body=tried, orelse=after, finalbody=last_of_all, handlers=handlers):
                for block in [*(handler.body for handler in handlers), tried, after, last_of_all]:
                    yield from _bindings(block, package)


@cache
def _place(module: str) -> tuple[Path | None, list[Path]]:
    """The file of a module, and the folders where modules below it are."""
    above, _, name = module.rpartition(".")
    if above:
        folders = [folder / name for folder in _place(above)[1]]
        for folder in folders:
            for file, below in ((folder / "__init__.py", [folder]), (folder.with_name(f"{name}.py"), [])):
                if file.is_file():
                    return file, below
        return None, [folder for folder in folders if folder.is_dir()]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    source = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    return source, [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
