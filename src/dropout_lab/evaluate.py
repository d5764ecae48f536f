"""Test a trained run again, from its folder alone: `python -m dropout_lab.evaluate run=DIR [ckpt=best|last|NAME]`.

`eval.mode=monte_carlo eval.samples=50` averages the predictions of dropout masks instead of turning dropout off.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropout_lab.cli import UserError, number, one_line_errors, read_arguments
from dropout_lab.jobs.devices import environment, rank, together
from dropout_lab.jobs.processes import leaving_nothing

if TYPE_CHECKING:
    from dropout_lab.runs.network import Restored

USAGE = "scripts/lab evaluate run=DIR [ckpt=best|last|NAME] [eval.mode=weight_scaling|monte_carlo eval.samples=50]"
MODES = ("weight_scaling", "monte_carlo")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print loss and accuracy on the test part."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        defaults = {"run": None, "ckpt": "best", "eval.mode": "weight_scaling", "eval.samples": "50"}
        values = read_arguments(given, USAGE, defaults)
        mode = values["eval.mode"]
        if mode not in MODES:
            raise UserError(f"eval.mode={mode}: must be {' or '.join(MODES)}")
        samples = int(number("eval.samples", values["eval.samples"], int, 1, 10**6, "a number of masks >= 1"))
        metrics = evaluate(Path(values["run"]), values["ckpt"], samples if mode == "monte_carlo" else 0)
        if rank():
            return
        how = f"monte_carlo, {samples} masks" if mode == "monte_carlo" else "weight_scaling, dropout off"
        print(f"{values['run']}  {values['ckpt']}.ckpt  {how}")
        width = max(map(len, metrics))
        for key, value in metrics.items():
            print(f"  {key:<{width}}  {value!r}")


def evaluate(folder: Path, checkpoint: str = "best", monte_carlo_samples: int = 0) -> dict[str, float]:
    """Test a run: loss (nats) and accuracy on the test part, in the precision of the run's trainer.

    On one device, however many the run had: of the kind of the run's where there is one here, else on the CPU. Started
    by torchrun, on as many as there are processes.

    Args:
        folder: the run folder; nothing is written into it.
        checkpoint: "best" (in validation), "last", or any other there is.
        monte_carlo_samples: average so many masks' predictions; 0: dropout off, as training's own test.

    Raises:
        UserError: a run or checkpoint that is not there or does not fit, or Monte Carlo of a run that was trained with
            other masks than this package draws.
    """
    from dropout_lab.runs.masks import why_other_masks
    from dropout_lab.runs.network import built_from, restore
    from dropout_lab.train.runtime import quieten_lightning

    quieten_lightning()
    run = restore(folder, checkpoint)
    if monte_carlo_samples and (why := why_other_masks(folder)):
        raise UserError(
            f"eval.mode=monte_carlo: {folder} holds a run {why}: its Monte Carlo is for the version of this package "
            "that trained it; eval.mode=weight_scaling works here, and so do fold, look and report"
        )
    with built_from(folder):
        return _tested(run, monte_carlo_samples)


def _tested(run: "Restored", monte_carlo_samples: int) -> dict[str, float]:
    """What is measured of a restored run on its test part."""
    import torch

    from dropout_lab.jobs.build import build_module, instantiate
    from dropout_lab.train.runtime import set_threads

    set_threads(run.config.threads)
    module = build_module(run.config, run.net, monte_carlo_samples=monte_carlo_samples)
    run.net.load_state_dict(run.saved.net, assign=True)  # a network is made in float32: others would be rounded
    module.load_state_dict(run.saved.rest, strict=False, assign=True)
    with_gpu = run.config.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    count = together()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", count))  # of this machine's
    trainer = instantiate(
        run.config.trainer,
        accelerator="auto" if with_gpu else "cpu",
        devices=devices,
        num_nodes=count // devices,
        strategy=run.config.trainer.strategy if count > 1 else "auto",
        sync_batchnorm=False,  # evaluation knows no batch statistics
        plugins=[environment()],
        logger=False,
        profiler=None,  # which would write where the run's configuration says
        enable_checkpointing=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    with leaving_nothing():
        trainer.test(module, run.data, verbose=False)
    return dict(module.tested)


if __name__ == "__main__":
    main()
