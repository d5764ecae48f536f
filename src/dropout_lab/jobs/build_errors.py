"""Errors of building: one line that names the key of the configuration that could not be built, and what it may be."""

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from dropout_lab.cli import UserError, nearest, root_cause
from dropout_lab.jobs.overrides import EXTRAS, FROM_CODE, OF_THE_LAB, WHOLE, needs_extra
from dropout_lab.jobs.signatures import ignores_others


def diagnose(job: DictConfig, error: Exception, group: str | None = None) -> str:
    """One line about an error that building a part of a job has raised.

    A constructor that refuses a value says ``KEY=VALUE: must be WHAT IS ALLOWED``, and its place in the configuration
    is put in front. Python's own message about a wrong key speaks of a class, and about a wrong type often of the
    inside of one. Values are held against the types that a signature states only now that building has failed: many
    state them wrongly.

    Args:
        job: the job's configuration.
        error: as it was raised.
        group: the section that was being built; None: Hydra says so where it is known.
    """
    told = re.sub(r"^TypeError: (?=.*=.*: must be )", "", root_cause(error)).replace("=None: must", "=null: must")
    found = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)  # may be a node within the section
    key = found[1] if found else group
    node = OmegaConf.select(job, key) if key else None
    if not isinstance(node, DictConfig) or "_target_" not in node or told.startswith((f"{key}.", "model.")):
        return told
    try:
        target = pkgutil.resolve_name(node["_target_"])
    except (ImportError, AttributeError, ValueError):
        return f"{key}.{unlocatable(node['_target_'])}"
    arguments = arguments_of(target)
    unknown = re.search(
        r"'(\w+)' is an invalid keyword|(?:(\S+)\(\) got an )?unexpected keyword argument '(\w+)'", told
    )
    if unknown and (name := unknown[1] or unknown[3]) in node:
        known = [argument for argument in arguments if argument not in FROM_CODE.get(str(key), ())]
        if _is_of(unknown[2], target) or nearest(name, known):
            return f"{key}.{unknown_key(name, node['_target_'], known)}"
    if (refused := re.match(r"(\w+)=", told)) and refused[1] in arguments:
        return f"{key}.{told}"
    for name, parameter in arguments.items():
        if name in node and node[name] != WHOLE and not _fits(node[name], parameter):
            value = "null" if node[name] is None else node[name]
            return f"{key}.{name}={value}: must be {_spelled(parameter.annotation)}"
    return told if f"{str(key).partition('.')[0]}." in told else f"{key}: {told}"


def _is_of(caller: str | None, target: Any) -> bool:
    """Whether the function that an error names, or names not at all, is of a target; else keys were handed on to it."""
    names = [each.__name__ for each in inspect.getmro(target)] if isinstance(target, type) else [target.__name__]
    return caller is None or caller.removesuffix(".__init__").rpartition(".")[2] in names


@contextmanager
def telling(job: DictConfig, section: str | None = None) -> Iterator[None]:
    """Make one line of whatever building a part of a job raises; the job will give its warnings.

    Raises:
        UserError: with what `diagnose` says of an error; a key that was taken, and not used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
        _require_used(OmegaConf.select(job, section) if section else job, section or "")
    except UserError:
        raise
    except Exception as error:
        raise UserError(diagnose(job, error, section)) from error


def _require_used(node: Any, key: str) -> None:
    """Refuse keys that a target within a node takes, as it takes any, and does nothing with."""
    if not isinstance(node, DictConfig):
        return
    target = str(node.get("_target_", ""))
    names = [str(name) for name in node if not str(name).startswith("_")]
    if ignores_others(target):
        known = arguments_of(pkgutil.resolve_name(target)).keys()
        for name in sorted({*names}.difference(known, OF_THE_LAB.get(key, ()))):
            raise UserError(f"{key}.{unknown_key(name, target, known)}")
    for name in names:
        if not (OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)):
            _require_used(node[name], f"{key}.{name}".lstrip("."))


def unknown_key(name: str, target: str, known: Collection[str]) -> str:
    """One line about a key that its target does not take, with the nearest one that it does, else all."""
    meant = nearest(name, known).strip() or f"allowed: {', '.join(known)}" * bool(known)
    return f"{name}: {target} takes no such key; {meant}".rstrip("; ")


def unlocatable(target: str) -> str:
    """One line about a ``_target_`` that is not there, with the nearest name that is, or the extra that it needs."""
    place, _, name = target.rpartition(".")
    try:
        names = dir(importlib.import_module(place))
    except ImportError as error:
        return needs_extra(f"_target_={target}", error.name) if error.name in EXTRAS else f"_target_={target}: {error}"
    except (AttributeError, ValueError) as error:
        return f"_target_={target}: {error}"
    return f"_target_={target}: {place} has no attribute {name!r}; {nearest(name, names)}".rstrip("; ")


def arguments_of(target: Any) -> dict[str, inspect.Parameter]:
    """The arguments that a class or function takes by name; where a class hands others on, those of its bases, too."""
    found: dict[str, inspect.Parameter] = {}
    for each in inspect.getmro(target) if isinstance(target, type) else [target]:
        try:
            own = inspect.signature(each).parameters
        except ValueError:  # written in C
            break
        named = {name: p for name, p in own.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        found = {**{name: _with_type(p, each) for name, p in named.items()}, **found}
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


def _with_type(parameter: inspect.Parameter, of: Any) -> inspect.Parameter:
    """A parameter whose annotation is no text; none where it has names that only a type checker imports."""
    if not isinstance(parameter.annotation, str):
        return parameter
    try:
        return parameter.replace(annotation=eval(parameter.annotation, vars(sys.modules[of.__module__])))
    except (NameError, TypeError):
        return parameter.replace(annotation=parameter.empty)


def _fits(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether a value is of the type that a signature states."""
    if value == parameter.default or parameter.annotation is parameter.empty:
        return True
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if isinstance(plain, dict) and "_target_" in plain:
        return True  # what it describes is no value of the configuration
    try:
        TypeAdapter(parameter.annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(plain)
    except ValidationError:
        return False
    except PydanticUserError:  # not a type that says anything about values
        return True
    return True


def _spelled(hint: Any) -> str:
    """A type as a sentence has it: ``int | None`` is "int or null"."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_spelled(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    if hint is NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else re.sub(r"\b[\w.]+\.", "", str(hint))
