"""Make a Weights & Biases workspace for your runs, as code: one line for each strategy, seeds as a band.

`python -m dropout_lab.dashboard [runs=DIR]` writes what W&B would be sent to a JSON file; `--push` saves it to your
project. Every push is a view of its own: nothing that you arranged by hand in W&B is touched.
"""

import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from dropout_lab.cli import UserError, one_line_errors, read_arguments
from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.modules.columns import OF_CLASSIFICATION, Column, declared
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.folder import CONFIG, METRICS, read_config
from dropout_lab.runs.layer_order import in_depth_order
from dropout_lab.runs.tracks import logged_keys
from dropout_lab.runs.wandb_settings import fitted, place_for_logs, require_variables

USAGE = (
    "scripts/lab dashboard [--push] [runs=DIR] [project=dropout-lab] [entity=NAME] [by=group] [out=runs/dashboard.json]"
)
RUNS = REPOSITORY / "runs"
DEFAULTS = {"runs": "", "project": "dropout-lab", "entity": "", "by": "group", "out": str(RUNS / "dashboard.json")}

STEP = "trainer/global_step"
LAYERS = {  # section -> what stands before the layer's name in the keys of one panel
    "Activation means, train and eval": ["activation_mean_train", "activation_mean_eval"],
    "Gain of each dropout layer: mean out / mean in": ["dropout_gain_train", "dropout_gain_eval"],
    "Ratio: mean train / mean eval, same inputs": ["activation_ratio"],
    "Shift: (mean train - mean eval) / std eval, same inputs": ["activation_shift"],
    "Variance ratio where a BatchNorm reads: var train / var eval": ["activation_variance_ratio"],
    "Fraction of zeros, train and eval": ["activation_zeros_train", "activation_zeros_eval"],
    "Drop probability of each layer": ["dropout_p"],
}
OPEN = 5  # sections that are unfolded at first
PICTURES = ["activation_pictures/profile", "activation_pictures/shift"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the workspace to a file, or save it to W&B; exit 2 with one line where that cannot be done."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        push = "--push" in words
        options = read_arguments([word for word in words if word != "--push"], USAGE, DEFAULTS)
        _require_names(options, push)
        keys, columns = _measured_below(options["runs"])
        if push:
            with place_for_logs():
                print(f"saved: {_push(options, keys, columns)}")
        else:
            out = Path(options["out"])
            if out.is_dir():
                raise UserError(f"out={out}: that is a folder; name a file, {out / 'dashboard.json'}")
            write_whole(out, (json.dumps(spec(workspace(options, keys, columns)), indent=1) + "\n").encode())
            print(f"written: {out} (nothing was sent; --push saves it to project {options['project']})")


def workspace(options: dict[str, str], keys: Iterable[str], columns: Sequence[Column] = OF_CLASSIFICATION) -> Any:
    """The workspace as W&B's library has it: curves, then a panel for each layer, in order of depth.

    Args:
        options: project, entity, and ``by``: "group" (runs that differ in nothing but the seed) or a configuration
            key such as ``dropout.p``.
        keys: metrics of the runs; without any, each section of layers is one panel that finds its lines itself.
        columns: the numbers that the runs measure.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    wr, ws, expr = _library()
    by = expr.Metric("Group") if options["by"] == "group" else expr.Config(options["by"])
    band = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}

    def line(title: str, y: Sequence[str] = (), **more: Any) -> Any:
        return wr.LinePlot(title=title, y=list(y), **({"x": STEP} | band | more))

    sections = []
    for column in columns:
        test, name = column.of("test"), column.title[:1].upper() + column.title[1:]
        drawn = [line(title, [metric]) for metric, title in column.curves.items()]
        bars = [wr.BarPlot(title=test, metrics=[test], **band)] if column.tested else []
        sections.append((name, drawn + bars))
    known = set(keys)
    for name, kinds in LAYERS.items():
        layers = in_depth_order({key.partition("/")[2] for key in known if key.partition("/")[0] in kinds})
        drawn = [line(layer, [f"{kind}/{layer}" for kind in kinds if f"{kind}/{layer}" in known]) for layer in layers]
        if not known:
            drawn = [line("all layers", metric_regex=f"^({'|'.join(kinds)})/.*")]
        sections.append((name, drawn))
    sections.append(("Pictures of every layer", [wr.MediaBrowser(title="by step", media_keys=PICTURES)]))
    first, clock = columns[0].of("val"), {"x": "RelativeTime(Process)"}
    sections.append(("Speed", [line("epochs by time", ["epoch"], **clock), line(f"{first} by time", [first], **clock)]))

    pinned = [*(f"summary:{column.of('test')}" for column in columns), "summary:gap/loss", "summary:final/ratio"]
    return ws.Workspace(
        name="Dropout: train and eval",
        entity=options["entity"],
        project=options["project"],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[by], pinned_columns=["run:displayName", *pinned]),
        sections=[
            ws.Section(name=name, panels=panels, is_open=number < OPEN)
            for number, (name, panels) in enumerate(sections)
            if panels
        ],
    )


def spec(built: Any) -> dict[str, Any]:
    """The workspace as W&B is sent it, in plain containers."""
    content: dict[str, Any] = built._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return content


def _measured_below(runs: str) -> tuple[list[str], list[Column]]:
    """Metrics and columns of the runs below a folder; of the newest below ``runs/`` where none is named, if any.

    Raises:
        UserError: the named folder holds no run.
    """
    files = sorted(Path(runs or RUNS).rglob(METRICS), key=lambda path: path.stat().st_mtime)
    if runs and not files:
        raise UserError(f"runs={runs}: no {METRICS} below it; give a run folder or a sweep, or leave runs= out")
    folders = [path.parent for path in (files if runs else files[-1:])]
    keys = list(dict.fromkeys(key for folder in folders for key in logged_keys(folder)))
    return keys, declared(read_config(folder) for folder in folders if (folder / CONFIG).is_file())


def _require_names(options: dict[str, str], push: bool) -> None:
    """Refuse a project or entity that W&B can't have, and where it will be asked, what its variables say."""
    try:
        for kind in ("project", "entity"):
            fitted(kind, options[kind], kind)
        if push:
            require_variables()
    except ValueError as error:
        raise UserError(str(error)) from None


def _push(options: dict[str, str], keys: Iterable[str], columns: Sequence[Column]) -> str:
    """Save the workspace to W&B; its address there."""
    _library()
    import wandb

    entity, project = options["entity"], options["project"]
    try:
        with redirect_stderr(StringIO()):  # it would tell where the key is from
            there = wandb.login(prompt=False, verify=True)
        if not there:
            raise UserError("--push needs an API key: `wandb login` stores one, WANDB_API_KEY=... gives one")
        entity = entity or str(wandb.Api().default_entity)
        built = workspace({**options, "entity": entity}, keys, columns)
        with redirect_stderr(StringIO()):
            built.save()
    except TypeError:  # the server's answer was nothing
        raise UserError(f"W&B has no project {entity}/{project}: give project=... and entity=...") from None
    except (wandb.errors.Error, OSError, ValueError) as error:  # OSError: also what requests raises
        raise UserError(f"W&B did not take the workspace: {str(error) or type(error).__name__}") from error
    return str(built.url)


def _library() -> tuple[Any, Any, Any]:
    """W&B's library of workspaces: its modules of reports, workspaces and expressions."""
    try:
        with warnings.catch_warnings():  # it is written for two versions of pydantic
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as wr
            import wandb_workspaces.workspaces as ws
            from wandb_workspaces import expr
    except ImportError:
        raise UserError(
            f"the dashboard needs a package that is not installed: {sys.executable} -m pip install wandb-workspaces"
        ) from None
    return wr, ws, expr


if __name__ == "__main__":
    main()
