"""W&B's rules for names, tags and variables, kept before a run begins: else each job ends at them, or its upload does.

The library is asked for those that it knows; the others are its server's.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from dropout_lab.cli import UserError
from dropout_lab.runs.folder import require_writable

LENGTHS = {"project": 128, "entity": 128, "id": 128, "name": 128, "group": 128, "job_type": 64}
WITHOUT = {"project": "/\\#?%:", "entity": "/\\#?%:", "id": "/\\#?%:;,'"}  # as they stand in addresses
SHORTENED = ("name", "group")  # which the lab makes of words that were chosen for something else
TAG = 64  # characters
VARIABLES = {kind: f"WANDB_{kind.upper()}" for kind in (*LENGTHS, "notes", "tags")} | {
    "id": "WANDB_RUN_ID",
    "group": "WANDB_RUN_GROUP",
}


def accepted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run as W&B takes them; what is left open is taken from W&B's variable for it.

    Args:
        settings: arguments of ``wandb.init``.

    Raises:
        ValueError: W&B would refuse one of them, or a variable.
    """
    found = dict(settings)
    for kind, variable in VARIABLES.items():
        value = fitted(kind, settings.get(kind), f"logger.wandb.{kind}")
        if value is None and (text := os.environ.get(variable)):
            value = fitted(kind, text.split(",") if kind == "tags" else text, variable)
        found[kind] = value
    if not isinstance(config := settings.get("config"), dict | str | None):
        raise ValueError(f"logger.wandb.config={config}: must be a mapping, or the name of a file with one")
    require_variables()
    for key, value in found.items():
        if value is not None:
            _ask(f"logger.wandb.{key}={value}", partial(_set, key=key, value=value))
    return found


def require_variables() -> None:
    """Refuse variables of W&B's which it would refuse itself, at its first use and whatever else is asked for.

    Raises:
        ValueError: the first one.
    """
    for name, text in os.environ.items():
        if name.startswith("WANDB_"):
            shown = name if name == "WANDB_API_KEY" else f"{name}={text}"
            _ask(shown, methodcaller("update_from_env_vars", {name: text}))


def fitted(kind: str, value: Any, key: str) -> Any:
    """A name, the tags or the notes as W&B takes them: a number as text, an empty one as none.

    Those of ``SHORTENED`` lose their middle where they are too long.

    Args:
        kind: an argument of ``wandb.init``.
        value: what it was set to.
        key: what its user calls it.

    Raises:
        ValueError: it can't be made to fit.
    """
    if value is None or value in ("", [], ()):
        return None
    if kind == "tags":
        return _tags(value, key)
    text, longest, without = str(value), LENGTHS.get(kind), WITHOUT.get(kind, "")
    if longest and kind in SHORTENED and len(text) > longest:
        text = f"{text[: longest - 40]}…{text[-39:]}"  # it ends in what tells it from others
    if not isinstance(value, str | int | float) or (longest and len(text) > longest) or set(text) & set(without):
        limits = f" of at most {longest} characters" * bool(longest) + f" without any of {without}" * bool(without)
        raise ValueError(f"{key}={value}: must be a text{limits}")
    return text


@contextmanager
def place_for_logs() -> Iterator[None]:
    """Give W&B's own process, if it starts within, a folder for its log where there is no home to write to.

    Else it would write its log to the terminal, line by line.
    """
    given = os.environ.get("WANDB_CACHE_DIR")
    cache = given or os.environ.get("XDG_CACHE_HOME") or (os.environ.get("HOME") or os.devnull) + "/.cache"
    try:
        require_writable(Path(cache, "wandb", "logs").absolute())
    except UserError:
        os.environ["WANDB_CACHE_DIR"] = f"{tempfile.gettempdir()}/wandb-{os.getuid()}"
    try:
        yield
    finally:
        os.environ.pop("WANDB_CACHE_DIR", None)
        if given is not None:
            os.environ["WANDB_CACHE_DIR"] = given


def _tags(value: Any, key: str) -> list[str]:
    tags = [value] if isinstance(value, str | int | float) else value
    fit = isinstance(tags, list | tuple) and all(isinstance(tag, str | int | float) for tag in tags)
    if not fit or not all(0 < len(str(tag)) <= TAG for tag in tags):
        raise ValueError(f"{key}={value}: must be a list of texts of 1 to {TAG} characters")
    return [str(tag) for tag in tags]


def _set(settings: Any, key: str, value: Any) -> None:
    """Set an argument of ``wandb.init`` in W&B's settings, if it is one of them."""
    for name in {key, f"run_{key}"} & type(settings).model_fields.keys():
        setattr(settings, name, value)


def _ask(what: str, change: Callable[[Any], None]) -> None:
    """Have W&B's library check a change of its settings."""
    import wandb
    from pydantic import ValidationError

    try:
        change(wandb.Settings())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        raise ValueError(f"{what}: {reason}") from error
    except (wandb.errors.Error, ValueError, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error
