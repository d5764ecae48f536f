"""Take dropout out of a trained run: `python -m dropout_lab.fold run=DIR out=FILE [ckpt=best|last|NAME]`.

The file holds the weights of the plain model, which compute without any dropout layer what the run computes in eval.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dropout_lab.cli import UserError, interruptible, one_line_errors, read_arguments
from dropout_lab.runs.atomic import replacing

USAGE = "scripts/lab fold run=DIR out=FILE [ckpt=best|last|NAME]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folded weights and say how far the outputs on test data are apart."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        values = read_arguments(given, USAGE, {"run": None, "out": None, "ckpt": "best"})
        out = Path(values["out"])
        difference, largest, rows = fold(Path(values["run"]), out, values["ckpt"])
        print(f"{out}: state_dict of the plain model, no dropout layers; load it with strict=True")
        print(f"max |difference| of outputs on {rows} test samples: {difference:.3g} (largest |output| {largest:.3g})")


def fold(folder: Path, out: Path, checkpoint: str = "best") -> tuple[float, float, int]:
    """Fold a run's dropout into its weights and write them.

    Args:
        folder: the run folder.
        out: file for the ``state_dict``; its folder must exist.
        checkpoint: "best" (in validation), "last", or any other there is.

    Returns:
        the largest difference between the outputs before and after, the largest output, and on how many test samples.

    Raises:
        UserError: no such run, no place to write, or a model in which no exact answer exists (says where and why).
    """
    import torch

    from dropout_lab.dropout import fold as fold_model
    from dropout_lab.runs.network import restore

    if not out.absolute().parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise UserError(f"out={out}: that is a folder; name a file, {out / 'weights.pt'}")
    run = restore(folder, checkpoint)
    test = run.data.test.take(slice(256))
    inputs, _ = run.data.measured_batch(test.inputs[:], test.targets)
    try:
        folded = fold_model(run.net, inputs[:2])
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be folded: {error}") from error
    with torch.no_grad():
        before, after = run.net(inputs), folded(inputs)
    with interruptible(), replacing(out) as file:
        torch.save(folded.state_dict(), file)
    return float((before - after).abs().max()), float(before.abs().max()), len(inputs)


if __name__ == "__main__":
    main()
