"""Captions of the page's pictures: a title, how to read it, and its controls."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caption:
    """The words that stand with one picture of the page.

    Attributes:
        title: of the picture; ``{score}`` stands for what its menu "quantity" has chosen of what is measured.
        how_to_read: what it shows; ``{over}`` stands for what it averages over.
        id: the name of the function in pictures.js that draws it.
        controls: name of a select element -> its label; page.js fills in the options.
        needs: what must be there for the picture: "rates", a strategy at several p; "layers", statistics of
            activations; "gain" or "ratio", that one; "": nothing.
    """

    id: str
    title: str
    how_to_read: str
    controls: dict[str, str] = field(default_factory=dict)
    needs: str = ""


CAPTIONS = (
    Caption(
        "score",
        "Test {score}",
        "Large marks are means with their 95 % interval over {over}, small marks the single runs. The test set is "
        "measured once, with the checkpoint that was best in validation.",
        {"column": "quantity"},
    ),
    Caption(
        "rates",
        "Test {score} by p",
        "One line per strategy whose p was swept, with 95 % intervals over {over}.",
        {"column": "quantity"},
        "rates",
    ),
    Caption(
        "curves",
        "Scores and losses over training",
        "Lines are means over {over}, bands their 95 % intervals. Training values in eval mode are measured on a "
        "fixed part of the training set, so that the gap compares like with like.",
        {"metric": "quantity"},
    ),
    Caption(
        "activations",
        "Activations over training, in train and in eval",
        "Mean over {over} at one layer. Choose a dropout layer's input and then its output to see what the layer "
        "itself does. In training the values are those of the training batches, in eval those of the validation "
        "set.",
        {"layer": "layer", "stat": "statistic"},
        "layers",
    ),
    Caption(
        "profile",
        "Every layer by depth, in train and in eval",
        "The same statistics at every monitored tensor, at the end of training; “_in” is the input of a dropout layer. "
        "Mean over {over}.",
        {"stat": "statistic"},
        "layers",
    ),
    Caption(
        "gain",
        "Gain of each dropout layer, by depth",
        "Mean out / mean in of the same pass, at the end of training. A correct strategy has the same gain in "
        "training and in eval: inverted 1 and 1, classic q and q. Unscaled has q and 1: the jump. The broad grey "
        "curves are these laws, with each layer's own q. Only dropout layers have a gain; it is left out where the "
        "mean of the input cannot be told from zero.",
        needs="gain",
    ),
    Caption(
        "ratio",
        "Ratio of each dropout layer, by depth",
        "Mean at its output in train over that in eval, for the same inputs and weights. It is"
        " not 1 in a ReLU net even for correct inverted dropout: the mask adds variance, and the next ReLU turns "
        "variance into mean. The broad grey curves are theory for a bias-free ReLU net at He initialisation with "
        "dropout after every layer, so they fit best at the first probe; training moves the ratio. Shown are the "
        "outputs of the dropout layers; the ratio is defined only at sites that are never negative, and others have"
        " no point.",
        {"when": "measured"},
        "ratio",
    ),
    Caption(
        "heatmap",
        "Every layer over training",
        "One row per monitored tensor, first layer on top; “_in” is the input of a dropout layer. Mean over {over}. "
        "Where a value of 1 (gain, ratio) or 0 (shift) means no difference, it has the colour of the background.",
        {"strategy": "strategy", "quantity": "quantity"},
        "layers",
    ),
)
