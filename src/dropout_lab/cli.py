"""The command line of every command: how its words are read, and how it ends when its user has to correct it."""

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra.errors import InstantiationException


class UserError(Exception):
    """An error that its user can correct, in one line: what was wrong, what is allowed, how to fix it."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with a UserError's line and exit code 2; ``HYDRA_FULL_ERROR=1`` shows the traceback."""
    try:
        yield
    except UserError as error:
        if full_errors():
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def full_errors() -> bool:
    """Whether the user wants to see tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def root_cause(error: BaseException) -> str:
    """An error in one line: its cause, not that instantiating something failed because of it.

    The kind of error stands in front, but for those that are about values and files and say all there is to say.
    """
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    if text and isinstance(error, ValueError | FileNotFoundError | ChildProcessError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(name: str, names: Iterable[str]) -> str:
    """The words ``did you mean 'x'? `` for the nearest of the names, or nothing."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


def read_arguments(arguments: Sequence[str], usage: str, defaults: Mapping[str, str | None]) -> dict[str, str]:
    """The value of every key of a command of ``key=value`` words, as text.

    Args:
        arguments: ``key=value`` words; ``-h`` or ``--help`` prints the usage and exits.
        usage: one line that shows the command.
        defaults: key -> value where it is not given; None: it must be given.

    Raises:
        UserError: a word that is no key=value, a key that is unknown, missing or given twice.
    """
    if {"-h", "--help"} & set(arguments):
        print(f"usage: {usage}")
        raise SystemExit(0)
    given: dict[str, str] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise UserError(f"{word}: not key=value; usage: {usage}")
        if key not in defaults:
            meant = nearest(key, defaults)
            raise UserError(f"{word}: there is no key {key!r}; {meant}allowed: {', '.join(defaults)}")
        if key in given:
            raise UserError(f"{word}: {key} is given twice")
        given[key] = value
    for key, default in defaults.items():
        if default is None and key not in given:
            raise UserError(f"{key}=... is missing; usage: {usage}")
    return {key: given.get(key, default or "") for key, default in defaults.items()}


def read_folders(arguments: Sequence[str], usage: str, count: int) -> list[Path]:
    """The folders that a command takes, and nothing else.

    Args:
        arguments: the folders; ``-h`` or ``--help`` prints the usage and exits.
        usage: one line that shows the command.
        count: how many it takes.

    Raises:
        UserError: they are more or fewer.
    """
    if {"-h", "--help"} & set(arguments):
        print(f"usage: {usage}")
        raise SystemExit(0)
    if len(arguments) != count:
        raise UserError(f"folders needed: {count}, given: {len(arguments)}; usage: {usage}")
    return [Path(word) for word in arguments]


def number(key: str, text: str, kind: type[int] | type[float], least: float, below: float, described: str) -> float:
    """A value as a number, ``least <= value < below``.

    Raises:
        UserError: it is none; ``described`` says what it has to be.
    """
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"{key}={text}: not a number; it must be {described}") from None
    if not least <= value < below:
        raise UserError(f"{key}={text}: out of range; it must be {described}")
    return value


def drop_probability(text: str) -> float:
    """The value of ``p=`` as a number.

    Raises:
        UserError: it is no probability to drop with.
    """
    return number("p", text, float, 0, 1, "the probability to drop, 0 <= p < 1")


def in_one_line(parser: ArgumentParser) -> ArgumentParser:
    """Make a parser refuse what it does not understand with a UserError, which names the nearest option."""

    def refuse(message: str) -> NoReturn:
        usage = " ".join(parser.format_usage().split())
        unknown = re.match(r"unrecognized arguments: (-[^\s=]+)", message)
        meant = nearest(unknown[1], re.findall(r"--[\w-]+", usage)) if unknown else ""
        raise UserError(f"{message}; {meant}{usage}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser
