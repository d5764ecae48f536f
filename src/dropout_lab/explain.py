"""Why survivors are multiplied by 1/(1-p), on a vector of ones: `python -m dropout_lab.explain p=0.75`, no training."""

import sys
from collections.abc import Sequence

from dropout_lab.errors import UserError, one_line_errors

STRATEGIES = {
    "inverted": {},
    "classic": {"scaling": "classic"},
    "spatial": {"mask": "channel"},
    "unscaled": {"scaling": "unscaled"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the explanation for ``p=...``."""
    with one_line_errors():
        print(explain(_p(list(sys.argv[1:] if arguments is None else arguments))))


def explain(p: float, seed: int = 0) -> str:
    """What dropping does to a mean of one, and the gain (mean out / mean in) of each strategy in train and eval.

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
        f"  as it is                                {ones.mean():.2f}",
        f"  after dropping                          {dropped.mean():.2f}",
        f"  survivors times 1/(1-p) = {1 / q:<12.4g}  {dropped.mean() / q:.2f}",
        "",
        "Gain of a dropout layer (mean out / mean in)",
        f"  {'strategy':<10} {'train':>15} {'eval':>6}",
    ]
    for name, axes in STRATEGIES.items():
        layer = Dropout(p, **axes)  # type: ignore[arg-type]
        with mask_keys(seed, 0, range(len(ones))):
            train = layer.train()(ones)
        draws = train.mean(dim=(2, 3)) if name == "spatial" else train  # a map is one draw
        error = float(draws.std()) / draws.numel() ** 0.5
        lines.append(f"  {name:<10} {train.mean():>6.3f} ± {error:<6.4f} {layer.eval()(ones).mean():>6.2f}")
    return "\n".join(
        [
            *lines,
            "",
            "The next layer learns on the train column and is used on the eval column. Without rescaling it then meets",
            f"inputs {1 / q:.4g} times as large as those it learned on: that jump is why one rescales. Inverted closes",
            "it while training, classic at test time. Spatial drops whole maps: the same gain, noisier.",
        ]
    )


def _p(arguments: list[str]) -> float:
    usage = "scripts/lab explain p=0.75, with 0 <= p < 1 the probability to drop"
    if len(arguments) != 1 or not arguments[0].startswith("p="):
        raise UserError(f"explain takes one argument: {usage}")
    try:
        p = float(arguments[0].removeprefix("p="))
    except ValueError:
        raise UserError(f"{arguments[0]}: not a number; {usage}") from None
    if not 0 <= p < 1:
        raise UserError(f"{arguments[0]}: out of range; {usage}")
    return p


if __name__ == "__main__":
    main()
