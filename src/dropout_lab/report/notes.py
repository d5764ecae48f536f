"""Notes under the table: what its numbers mean, in a sentence each, with this table's own depth and q."""

from collections.abc import Sequence

from dropout_lab.report.table import Row, has_layers
from dropout_lab.report.theory import expected_ratio


def notes(table: Sequence[Row]) -> list[str]:
    """Notes on what the train/eval ratio is, why it drifts, and what "matched" means, with this table's own numbers.

    Each only where the table has something that it is about.
    """
    told = [_drift(table)] if has_layers(table) else []
    if any(row.strategy.scaling == "classic" for row in table):
        told.append(_matched())
    return [*told, _definitions(has_layers(table))]


def _drift(table: Sequence[Row]) -> str:
    """The note on the ratio between train and eval, with theory's numbers where they are the same in all rows."""
    text = (
        "train/eval is the mean at the last dropout layer in train over that in eval, for the same inputs and weights: "
        "even correct inverted dropout does not keep it at 1 in a ReLU net, since the mask keeps the mean but adds "
        "variance, and the next ReLU turns variance into mean (theory at He init: about q^(-(l-1)/2) at dropout l, "
        "unscaled q^((l+1)/2)"
    )
    nets = {tuple(row.strategy.keeps() or ()) for row in table if row.strategy.scaling != "none"} - {()}
    if len(nets) == 1 and len(set(*nets)) == 1:  # one depth and one q in the whole table
        (qs,) = nets
        inverted, unscaled = expected_ratio("inverted", qs), expected_ratio("unscaled", qs)
        text += f"; here l = {len(qs)}, q = {qs[-1]:.3g}: {inverted:.2f} and {unscaled:.2f}"
    return f"{text}); training then moves it."


def _matched() -> str:
    """The note on matched and unmatched classic dropout."""
    return (
        '"matched" makes classic and inverted the same optimisation problem: the weights behind classic dropout '
        "start at init/q and train with lr/q^2 and weight decay*q^2; unmatched, with inverted's own numbers, classic "
        "starts smaller by q and learns slower by q^2."
    )


def _definitions(layers: bool) -> str:
    """The note on what ±, gain, gap and q are; on the gain only where there are statistics of layers."""
    gain = "gain is mean out / mean in of the last dropout layer; " * layers
    return (
        f"± is the half width of a 95 % interval (Student t over seeds); {gain}gap is validation minus training NLL, "
        "in eval mode, at the last epoch; q = 1 - p is what is kept."
    )
