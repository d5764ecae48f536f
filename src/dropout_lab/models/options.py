"""Options of models that a library makes by their names: which ones there are, and one line about those it refuses."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dropout_lab.cli import nearest

_UNKNOWN = re.compile(r"unexpected keyword argument\W+(?:s\W+)?(\w+)")
_SETTLED = re.compile(r"(?:multiple values for (?:keyword )?argument|parameter) '(\w+)'")


def arguments_of(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of the class of model that a library's function makes, to which it hands on what it is given."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    found = inspect.signature(inspect.signature(builder).return_annotation).parameters
    return {name: each for name, each in found.items() if each.kind in named}


def choices(builder: Callable[..., Any], given: Collection[str]) -> list[str]:
    """Names of the arguments that can be chosen: those with a default, as the others make the model that of its name.

    Args:
        builder: the library's function that makes a model.
        given: arguments that are not for the configuration to give.
    """
    found = arguments_of(builder).items()
    return [name for name, each in found if each.default is not each.empty and name not in given]


def require_chosen(name: str, options: Collection[str], builder: Callable[..., Any], free: Collection[str]) -> None:
    """Refuse options that a model does not take, before it is made: some classes take any, and do nothing with them.

    Args:
        name: of the model, for the error.
        options: names of what is to be chosen.
        builder: the library's function that makes the model.
        free: its `choices`.

    Raises:
        ValueError: the first option that is none, with the nearest that there is, else all.
    """
    for option in options:
        if option not in free:
            argument = arguments_of(builder).get(option)
            needed = argument is not None and argument.default is argument.empty
            raise ValueError((_settled if needed else _unknown)(option, name, free))


@contextmanager
def telling_options(name: str, options: Mapping[str, Any], free: Collection[str]) -> Iterator[None]:
    """Make one line of whatever a library raises that makes a model with options.

    Raises:
        ValueError: with the option, where the library names it, else with all of them.
    """
    try:
        yield
    except Exception as error:  # libraries check few values, and raise whatever comes of the others
        if not options:
            raise
        said = " ".join(str(error).split())[:300]
        for pattern, told in ((_UNKNOWN, _unknown), (_SETTLED, _settled)):
            if (found := pattern.search(said)) and found[1] in options:
                raise ValueError(told(found[1], name, free)) from error
        words = ", ".join(f"model.{key}={value}" for key, value in options.items())
        raise ValueError(f"{words}: {name} can't be made with that: {type(error).__name__}: {said}") from error


def _unknown(option: str, name: str, free: Collection[str]) -> str:
    """One line about an option that a model does not take."""
    meant = nearest(option, free).strip() or f"allowed: {', '.join(free)}"
    return f"model.{option}: {name} takes no such key; {meant}"


def _settled(option: str, name: str, free: Collection[str]) -> str:
    """One line about an option that the name of a model settles."""
    others = ", ".join(each for each in free if each != option)
    return f"model.{option}: the library settles that for {name}; allowed: {others}"
