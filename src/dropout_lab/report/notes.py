"""Notes under the table: what its numbers mean, in a sentence each, with this table's own depth and q."""

from collections.abc import Sequence

from dropout_lab.report.table import Row, keys_with_numbers, replicated
from dropout_lab.report.theory import expected_ratio
from dropout_lab.runs.read import Run


def notes(table: Sequence[Row]) -> list[str]:
    """Notes on what ratio, matching, gain, gap and ± are, each only where the table has numbers that it is about."""
    shown, ran = keys_with_numbers(table), [row for row in table if row.seeds]
    told = [_ratio(ran)] if "ratio" in shown else []
    if any(row.strategy.scaling == "classic" for row in ran):
        told.append(
            '"matched" makes classic and inverted the same optimisation problem: the weights behind classic dropout '
            "start at init/q and train with lr/q^2 and weight decay*q^2, where q = 1 - p is what is kept; unmatched, "
            "with inverted's own numbers, classic starts smaller by q and learns slower by q^2."
        )
    defined = []
    if any(column.with_interval and row.values[column.key].n > 1 for row in ran for column in row.columns):
        each = dict.fromkeys(row.strategy.units.each for row in ran if row.strategy.units.each)
        over = ", ".join([f"Student t over {replicated(table)}", *each])
        defined.append(f"± is the half width of a 95 % interval ({over})")
    if {"gain_train", "gain_eval"} & shown:
        defined.append("gain is mean out / mean in of the last dropout layer")
    if {"test_nll", "gap_nll"} & shown:
        defined.append("NLL is the negative log-likelihood, in nats")
    if any(key.startswith("gap_") for key in shown):
        defined.append("gap is validation minus training data, both with dropout off, at the last epoch")
    if defined:
        told.append(f"{'; '.join(defined)}.")
    return [*told, *_of_the_networks(ran)]


def _of_the_networks(ran: Sequence[Row]) -> list[str]:
    """Notes on noise of the networks' own, which is in no strategy, and on strategies at other sites."""
    elsewhere = dict.fromkeys(words for row in ran for words in row.strategy.remarks("elsewhere"))
    told = [
        f'"{words}": so many sites have that mask, as the strategy\'s own does not fit there.' for words in elsewhere
    ]
    for key, what in (
        ("more", "With it, at sites of its own"),
        ("on", "Left on in the network"),
        ("off", "Switched off in the network"),
    ):
        of_rows = {row.strategy.name: row.strategy.remarks(key) for row in ran}
        for line in dict.fromkeys(line for lines in of_rows.values() for line in lines):
            where = [name for name, lines in of_rows.items() if line in lines]
            which = "" if len(where) == len(ran) else f" of {', '.join(where)}"
            told.append(f"{what}{which}: {line}.")
    return told


def heading(left_out: Sequence[Run], remarks: Sequence[object]) -> str:
    """The heading over the runs that are not counted and the remarks on those that are."""
    return "Remarks" if remarks and not left_out else "Not in the table"


def _ratio(ran: Sequence[Row]) -> str:
    """The note on the ratio between train and eval, with theory's numbers where they are the same in all rows."""
    text = "ratio is the mean at the last dropout layer in train over that in eval, for the same inputs and weights."
    dropping = [row.strategy for row in ran if row.strategy.scaling != "none"]
    if not dropping:
        return text
    text += (
        " In a ReLU net even correct inverted dropout does not keep it at 1: the mask keeps the mean but adds variance,"
        " and the next ReLU turns variance into mean. Before training (He init) theory has it near q^(-(l-1)/2) at the "
        "l-th dropout layer from the input, unscaled q^((l+1)/2), where q = 1 - p is what is kept"
    )
    nets = {tuple(strategy.keeps() or ()) for strategy in dropping} - {()}
    if len(nets) == 1 and len(set(*nets)) == 1:  # one depth and one q in the whole table
        (qs,) = nets
        inverted, unscaled = expected_ratio("inverted", qs), expected_ratio("unscaled", qs)
        text += f": for the last, l = {len(qs)}, and q = {qs[-1]:.3g} these are {inverted:.2f} and {unscaled:.2f}"
    return f"{text}. Training then moves it."
