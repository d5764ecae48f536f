"""What an experiment states before it runs: the section ``verdict`` of conf/experiment/NAME.yaml.

It becomes part of every run's config.yaml and of its hash, so what is judged is what was stated when the run started.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dropout_lab.errors import UserError

Positive = Annotated[float, Field(gt=0)]


class Claim(BaseModel):
    """One statement about arms, and how it is tested.

    Attributes:
        says: the claim in words.
        metric: a scalar of metrics.csv (``test/acc``); a layer's ``dropout_gain_train/LAYER`` or
            ``activation_ratio/LAYER``, where ``*`` stands for every dropout layer, all of which have to agree;
            ``test/ece``; for pairs ``weights/difference``, ``weights/norm_ratio`` or ``METRIC/difference``.
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


class Stated(BaseModel):
    """All claims of an experiment; ``alpha`` bounds the chance that any is wrongly said to hold (Holm)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    claims: Annotated[list[Claim], Field(min_length=1)]


def stated(section: Mapping[str, Any]) -> Stated:
    """Read a ``verdict`` section.

    Raises:
        UserError: it is not one, with the place and the reason.
    """
    try:
        return Stated.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("verdict", *first["loc"]))
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
