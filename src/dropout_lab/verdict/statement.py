"""Statements of an experiment before it runs: the section ``verdict`` of conf/experiment/NAME.yaml.

It becomes part of every run's config.yaml and of its hash, so what is judged is what was stated when the run started.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dropout_lab.cli import UserError

Positive = Annotated[float, Field(gt=0)]


class Claim(BaseModel):
    """A claim about arms, and how it is tested.

    Attributes:
        says: the claim in words.
        metric: one of those at the top of metrics.py: a scalar of metrics.csv (``test/acc``), a layer's statistic
            (``activation_ratio/LAYER``; ``*`` stands for every dropout layer, all of which have to agree), or what a
            trained network tells (``test/ece``); for pairs ``weights/difference`` and the like.
        contrast: arm -> weight; the value at one seed is the weighted sum of the arms' metrics.
        pair: two arms, for metrics that need both runs of a seed.
        direction: of value - theory: greater or less than 0, or equal to 0 within ``margin``.
        theory: the value to compare with; one for each layer where the metric has a ``*``.
        margin: for equal; one, or one for each layer.
        matters: for greater and less: the smallest difference anyone would care about.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    says: str
    metric: str
    contrast: dict[str, float] | None = None
    pair: tuple[str, str] | None = None
    direction: Literal["greater", "less", "equal"]
    theory: float | list[float] = 0.0
    margin: Positive | list[Positive] | None = None
    matters: Positive | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> "Claim":
        if (self.contrast is None) == (self.pair is None):
            raise ValueError("needs contrast or pair, not both")
        if (self.direction == "equal") != (self.margin is not None):
            raise ValueError("a margin belongs to direction equal, and only there")
        if (self.direction == "equal") == (self.matters is not None):
            raise ValueError("matters belongs to direction greater or less, and only there")
        return self

    @property
    def arms(self) -> list[str]:
        """The arms whose runs are needed."""
        return list(self.pair or self.contrast or ())


class Line(BaseModel):
    """A line of a plot: a metric at several arms, or one arm's metric at several numbers.

    Attributes:
        metric: as of a claim, about single runs; with ``at``, what stands before its last "/".
        arms: arm -> x.
        arm: the only one.
        at: the numbers behind the metric's last "/", which are x.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    metric: str
    arms: dict[str, float] | None = None
    arm: str | None = None
    at: list[float] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Line":
        if (self.arms is None) == (self.arm is None) or (self.arm is None) != (self.at is None):
            raise ValueError("needs arms (name: x), or arm and at")
        return self

    @property
    def points(self) -> list[tuple[str, str, float]]:
        """The points of the line: (arm, metric, x) of each."""
        if self.arms is not None:
            return [(arm, self.metric, x) for arm, x in self.arms.items()]
        return [(self.arm or "", f"{self.metric}/{x:g}", x) for x in self.at or ()]


class Plot(BaseModel):
    """A picture of an experiment: lines over something that was varied.

    Attributes:
        x: what the horizontal axis is, in words.
        y: the vertical one.
        log: those of the two that are logarithmic.
        lines: name -> line.
        reference: name -> x -> y: a law, or what the lines are compared with.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    x: str
    y: str
    log: list[Literal["x", "y"]] = []
    lines: Annotated[dict[str, Line], Field(min_length=1)]
    reference: dict[str, dict[float, float]] = {}


class Statement(BaseModel):
    """All that an experiment claims, and what else its page shows.

    Attributes:
        alpha: bounds the chance that any is wrongly said to hold (Holm).
        claims: at least one; a picture of them needs no words here.
        figure: what else is drawn.
        filters: arms, whose weights into the units of the first layer are shown as images.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    claims: Annotated[list[Claim], Field(min_length=1)]
    figure: list[Plot] = []
    filters: list[str] = []


def read_statement(section: Mapping[str, Any]) -> Statement:
    """What an experiment states, read from its section ``verdict``.

    Raises:
        UserError: it is not one, with the place and the reason.
    """
    try:
        return Statement.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("verdict", *first["loc"]))
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
