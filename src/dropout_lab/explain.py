"""Explain why survivors are multiplied by 1/(1-p), on ones: `python -m dropout_lab.explain p=0.75`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dropout_lab.cli import drop_probability, one_line_errors, read_arguments

if TYPE_CHECKING:
    import torch

USAGE = "scripts/lab explain p=0.75"
STRATEGIES = {
    "inverted": {},
    "classic": {"scaling": "classic"},
    "spatial": {"mask": "channel"},
    "unscaled": {"scaling": "unscaled"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the explanation for ``p=...``."""
    with one_line_errors():
        given = read_arguments(sys.argv[1:] if arguments is None else arguments, USAGE, {"p": None})
        print(explain(drop_probability(given["p"])))


def explain(p: float, seed: int = 0) -> str:
    """Text on what dropping does to a mean of one, and on the gain of each strategy in train and in eval.

    Args:
        p: probability to drop.
        seed: of the masks.

    Returns:
        text for a terminal.
    """
    import torch

    from dropout_lab.dropout import Dropout, mask_keys

    q = 1 - p
    ones = torch.ones(1000, 64, 8, 8)  # 4 million ones, in 64,000 maps for the spatial masks
    with mask_keys(seed, 0, range(len(ones))):
        dropped = Dropout(p, scaling="unscaled")(ones)
    lines = [
        f"p = {p:g}: each unit is dropped with probability {p:g}, kept with q = 1 - p = {q:g}.",
        "",
        "A vector of ones                          mean",
        f"  as it is                                {_mean(ones)}",
        f"  after dropping                          {_mean(dropped)}",
        f"  survivors times 1/(1-p) = {1 / q:<12.4g}  {_mean(dropped / q)}",
        "",
        "Gain of a dropout layer (mean out / mean in, ± is its 95 % interval in this sample of masks)",
        f"  {'strategy':<10} {'train':>7} {'':9} {'eval':>8}",
    ]
    for name, axes in STRATEGIES.items():
        layer = Dropout(p, **axes)  # type: ignore[arg-type]
        with mask_keys(seed, 0, range(len(ones))):
            train = layer.train()(ones)
        draws = train.mean(dim=(2, 3)) if name == "spatial" else train  # a map is one draw
        margin = 1.96 * float(draws.std()) / draws.numel() ** 0.5
        lines.append(f"  {name:<10} {train.mean():>#7.4g} ± {margin:<7.1g} {layer.eval()(ones[:1]).mean():>8.4g}")
    return "\n".join(
        [
            *lines,
            "",
            "The next layer learns on the train column and is used on the eval column. Without rescaling it then meets",
            f"inputs {1 / q:.4g} times as large as those it learned on: that jump is why one rescales. Inverted closes",
            "it while training, classic at test time. Spatial drops whole maps: the same gain, noisier.",
        ]
    )


def _mean(x: "torch.Tensor") -> str:
    """The mean of a tensor as text: two decimals, or two digits where that would be 0.00."""
    mean = float(x.mean())
    return f"{mean:.2f}" if mean >= 0.01 or mean == 0 else f"{mean:.2g}"


if __name__ == "__main__":
    main()
