"""Tell where two runs part, and why: `python -m dropout_lab.diff RUN RUN`, the folders of the runs.

Compared are the configurations, the code, the numbers that were recorded, and then, step by step, both trainings done
again: data order and masks are functions of (seed, step), so the first thing that differs can be found and named.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dropout_lab.cli import UserError, one_line_errors, plain, read_folders
from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.folder import ACTIVATIONS, CONFIG, METRICS, read_config, read_status
from dropout_lab.runs.intact import warn_of_edits
from dropout_lab.runs.settings import NOT_OF_THE_RESULT

if TYPE_CHECKING:
    import pandas as pd

    from dropout_lab.diff.replay import Event

USAGE = "scripts/lab diff RUN RUN"
TABLES = {METRICS: ["step", "epoch", "key"], ACTIVATIONS: ["step", "epoch", "mode", "layer", "stat"]}
NUMERICS = ("channels_last", "compile", "threads", "trainer.precision")  # keys that change no more than the rounding
REASONS = {  # of an event that is the first to differ, and the beginnings of the keys that can bring it about
    "initial weights": ("other initial weights", ("seed", "model", "optimizer.match")),
    "weights": (
        "the same gradients, but other weights after the step before",
        ("optimizer", "lr_scheduler", "callbacks.max_norm", "trainer.gradient_clip", "trainer.max_"),
    ),
    "samples": ("other samples, or another order of them", ("seed", "data")),
    "images": ("the same samples, prepared in another way", ("data", "seed")),
    "classes": ("the same samples with other classes", ("data",)),
    "mask": ("the same input, another mask", ("keyed", "seed", "dropout", "placement")),
    "output": ("the same input and mask, another output", ("dropout", "placement", "model", *NUMERICS)),
    "loss": ("the same outputs, another loss", ("loss", "module", "dropout", "trainer.accumulate_grad_batches")),
    "gradient": ("the same loss, another gradient", NUMERICS),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison and exit: 0 when nothing differs, 1 when something does, 2 when it can't be told."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        a, b = read_folders(given, USAGE, 2)
        lines = diff(a, b)
        how = "" if (status := _status(a)) == "ok" else f"; status of both: {status}"
        print("\n".join(map(plain, lines)) or f"nothing differs: configuration, code, records{how}")
        sys.exit(int(bool(lines)))


def diff(a: Path, b: Path) -> list[str]:
    """The differences of two runs, a line each; nothing where they are the same.

    Args:
        a, b: the run folders; nothing is written into them.

    Raises:
        UserError: no such run, or one whose data is not there; runs without a number that differ in nothing else.
    """
    configs = read_config(a), read_config(b)
    for folder in (a, b):
        warn_of_edits(folder, CONFIG, *TABLES)
    settings = _settings(*configs)
    lines = [f"config    {key}: {ours} | {theirs}" for key, (ours, theirs) in settings.items()]
    lines += _code(read_status(a), read_status(b))
    if _status(a) != _status(b):
        lines.append(f"status    {_status(a)} | {_status(b)}")
    tables = {name: (_long(a / name, keys), _long(b / name, keys)) for name, keys in TABLES.items()}
    if without := [folder for n, folder in enumerate((a, b)) if all(pair[n].empty for pair in tables.values())]:
        told = " and ".join(f"{folder} ({_status(folder)})" for folder in without)
        nothing = f"nothing to compare: no number is recorded in {told}"
        if not lines and len(without) == 2:
            raise UserError(nothing)
        return [*lines, f"records   {nothing}"]
    recorded, step = _records(tables)
    if recorded or lines:
        lines += recorded or ["records   the same to the last digit"]
    if step is not None:
        lines += _refused(a, b) or _replayed(*configs, last=step, differing=list(settings))
    return lines


def _settings(a: DictConfig, b: DictConfig) -> dict[str, tuple[str, str]]:
    """Keys of the configurations with different values that count for the result, and these values."""
    # Files in the run's own folder are the same ones wherever it lies.
    own = [(config.get("run") or {}).get("dir") or "RUN" for config in (a, b)]
    values = [
        {key: str(value).replace(folder, "RUN") for key, value in flat(config).items()}
        for config, folder in zip((a, b), own, strict=True)
    ]
    settings = {}
    for key in dict.fromkeys([*values[0], *values[1]]):
        ours, theirs = (of.get(key, "-") for of in values)
        if ours != theirs and key.partition(".")[0] not in NOT_OF_THE_RESULT:
            settings[key] = ours, theirs
    return settings


def _code(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """A line for each difference of the code: another revision, uncommitted changes, other versions."""
    if a.get("git_sha") != b.get("git_sha"):
        yield f"code      revision {str(a.get('git_sha'))[:10]} | {str(b.get('git_sha'))[:10]}"
    if a.get("git_diff") != b.get("git_diff"):
        yield "code      uncommitted changes differ: git_diff in status.json has them"
    versions = [run.get("versions") or {} for run in (a, b)]
    for package in dict.fromkeys([*versions[0], *versions[1]]):
        ours, theirs = (of.get(package) for of in versions)
        if ours != theirs:
            yield f"code      {package} {ours} | {theirs}"


def _status(run: Path) -> str:
    """How a run ended, and why if not well."""
    about = read_status(run)
    error = str(about.get("error") or "").replace(str(run), "RUN")
    return f"{about['status']}: {error}" if error else str(about["status"])


def _records(tables: "dict[str, tuple[pd.Series[float], pd.Series[float]]]") -> tuple[list[str], int | None]:
    """The first recorded number that differs, a line for each table, and the first step at which one does, if any."""
    lines, steps = [], []
    for name, keys in TABLES.items():
        ours, theirs = tables[name]
        if ours.empty != theirs.empty:
            lines.append(f"records   {name}: no number in that of the {'first' if ours.empty else 'second'} run")
            continue
        both = ours.to_frame("a").join(theirs.to_frame("b"), how="outer", sort=False)
        differs = both[(both.a != both.b) & ~(both.a.isna() & both.b.isna())]
        if differs.empty:
            continue
        first = differs.sort_index(level="step", kind="stable").iloc[0]
        where = dict(zip(keys, first.name, strict=True))
        steps.append(int(where.pop("step")))
        what = " ".join(str(value) for key, value in where.items() if key != "epoch")
        lines.append(
            f"records   {name} at step {steps[-1]}, epoch {where['epoch']}: {what} {first.a:.6g} | {first.b:.6g}; in "
            f"all {len(differs)} of {len(both)} numbers differ"
        )
    return lines, min(steps, default=None)


def _long(path: Path, keys: list[str]) -> "pd.Series[float]":
    """A table of a run with one number a row; empty where the run has none.

    Raises:
        UserError: it is no such table.
    """
    from dropout_lab.runs.tracks import read_numbers  # pandas takes half a second

    try:
        return read_numbers(path, keys)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: can't be read as a table of a run: {reason}; give a copy of it") from error


def _refused(*runs: Path) -> list[str]:
    """Why the runs can't be trained again, the first reason found; nothing where they can."""
    from dropout_lab.runs.masks import why_other_masks

    for run in runs:
        if why := why_other_masks(run):
            return [
                f"replay    refused: {run} holds a run {why}: what is said above holds, and the version of this "
                "package that trained it can do its steps again"
            ]
    return []


def _replayed(a: DictConfig, b: DictConfig, last: int, differing: Sequence[str]) -> list[str]:
    """The place where both part when they are trained again, up to the step at which the records do."""
    from dropout_lab.diff.replay import replay

    accumulated = [(config.get("trainer") or {}).get("accumulate_grad_batches") or 1 for config in (a, b)]
    last *= max(accumulated)  # replayed are micro-batches
    steps = 1
    while True:
        ours, theirs = replay(a, steps), replay(b, steps)
        for number, (x, y) in enumerate(zip_longest(ours, theirs)):
            if x != y:
                before = [event for event in ours[:number] if event.step == (x or y).step]
                return [f"replay    {_explain(x, y, before, differing)}"]
        if steps >= last:
            return [
                f"replay    both are the same for {steps} steps now: what parted them is not in their configurations, "
                "but in code, versions, devices or an interruption"
            ]
        steps = min(10 * steps, last)


def _explain(x: "Event | None", y: "Event | None", before: "list[Event]", differing: Sequence[str]) -> str:
    """The first event that differs in words: after which ones of its step, and which keys to look at."""
    here = x or y
    assert here is not None
    same = ", ".join(
        dict.fromkeys(f"{event.what}{'s' if event.what in ('mask', 'output') else ''}" for event in before)
    )
    if x is None or y is None:
        reason = f"only the {'second' if x is None else 'first'} goes on"
    elif x[:3] == y[:3]:
        initial = here.what == "weights" and here.step == 0
        reason, keys = REASONS["initial weights" if initial else here.what]
        reason += f": look at {', '.join([key for key in differing if key.startswith(keys)] or keys)}"
    elif "mask" in (x.what, y.what):
        drops, layer = ("first", x.where) if x.what == "mask" else ("second", y.where)
        return f"they part at step {here.step} in {layer}: only the {drops} drops there (the same until then: {same})"
    else:
        reason = f"the networks differ: {x.what} of {x.where or 'the batch'} | {y.what} of {y.where or 'the batch'}"
    place = f" in {here.where}" if here.where else ""
    return f"they part at step {here.step}{place}: {reason}" + (f" (the same until then: {same})" if same else "")


if __name__ == "__main__":
    main()
