"""How a command ends when its user, not the code, has something to correct."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """One line: what was wrong, what is allowed, how to fix it."""


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


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'x'? `` for the nearest of the names, or nothing."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""
