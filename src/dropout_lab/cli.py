"""The command line of every command: how its words are read, and how it ends when its user has to correct it."""

import errno
import os
import re
import select
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher, get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import InstantiationException

from dropout_lab import end_at_once

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """An error that its user can correct, in one line: what was wrong, what is allowed, how to fix it."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line: exit code 2 for a UserError and for what can't be written, 130 for Ctrl-C.

    ``HYDRA_FULL_ERROR=1`` shows the traceback. Where nobody reads on, as behind ``| head``, it ends without a word.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # one that can't say "±" says it otherwise
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _disks_told(), _ending_with_its_reader():
            yield
    except (UserError, KeyboardInterrupt) as error:
        if full_errors():
            raise
        if isinstance(error, UserError):
            print(f"error: {plain(' '.join(str(error).split()))}", file=sys.stderr)
            sys.exit(2)
        line = str(error) or "interrupted"
        if _is_command():
            with suppress(OSError):  # a pipe, the other end of which has ended, too
                sys.stdout.flush()
            end_at_once(line=line)  # Python would need seconds to take torch apart
        print(line, file=sys.stderr)
        sys.exit(130)


@contextmanager
def _disks_told() -> Iterator[None]:
    """Make what can't be written a matter of the user's: a disk is full or read-only, a folder is another's."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UserError(": ".join(str(each) for each in (error.filename, error.strerror) if each)) from error


@contextmanager
def _ending_with_its_reader() -> Iterator[None]:
    """End the program when nobody reads what it prints any more: with exit code 141, a shell's word for SIGPIPE.

    Not by that signal itself, which any broken connection to a worker or a server would raise as well.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python has yet to flush
        sys.exit(141)


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads from."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt within, for what has to be put in order then; another one ends at once.

    Outside of this, a command ends at once (``dropout_lab.end_at_once``). Nothing changes in a process that is none.
    """
    if not _is_command():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, end_at_once)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave Ctrl-C unheard within while an earlier one is being answered: what is left of it does not take long."""
    heard = _is_command()
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGINT, end_at_once)


def _interrupt(number: int, frame: object) -> NoReturn:
    """Raise KeyboardInterrupt, as the handler of the first Ctrl-C."""
    signal.signal(signal.SIGINT, end_at_once)
    raise KeyboardInterrupt


def _is_command() -> bool:
    """Whether this process is a command that Ctrl-C ends at once just now."""
    return signal.getsignal(signal.SIGINT) is end_at_once


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
    if text and isinstance(error, UserError | ValueError | FileNotFoundError | ChildProcessError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def plain(node: Any) -> Any:
    """A text, or plain containers with texts, from anywhere as it can be shown in a line: nothing in it does anything.

    What would move a cursor, change a colour or turn the direction of reading is spelled out.
    """
    if isinstance(node, str):
        return re.sub(r"[^ -~]", _spelled, node)
    if isinstance(node, dict):
        return {plain(key): plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def nearest(name: str, names: Iterable[str]) -> str:
    """The words ``did you mean 'x'? `` for the nearest of the names, of equally near ones the first, or nothing."""
    names = list(names)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    best = max(sorted(close, key=names.index), key=lambda one: SequenceMatcher(None, one, name).ratio(), default=None)
    return f"did you mean {best!r}? " if best else ""


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
