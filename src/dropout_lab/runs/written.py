"""Kinds of the values that a run has written into its configuration, of those that are read without building a thing.

Tables, names and pictures rest on them. What a class is built from, it refuses itself.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Single = str | int | float | bool | None
Section = dict[str, Any] | None
Text = str | None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Run(_Part):
    dir: Text = None
    label: Text = None
    name: Text = None
    overrides: list[str] | None = None
    choices: dict[str, Single] | None = None


class _Data(_Part):
    fold: Single = None
    folds: Annotated[int, Field(ge=2)] | None = None
    split: Single = None
    split_seed: Single = None


class _Dropout(_Part):
    mask: Single = None
    noise: Single = None
    scaling: Single = None


class _Trainer(_Part):
    accumulate_grad_batches: int | None = None


class _Column(_Part):
    key: str
    title: str
    unit: str = ""
    decimals: Annotated[int, Field(ge=0, le=20)] = 3
    better: Literal["more", "less"] | None = None
    short: str = ""
    shown: bool = True


class _More(_Part):
    dropout_schedule: Section = None


class _Written(_Part):
    seed: int | None = None
    replicates: list[str] | None = None
    arm: Single = None
    start_from: Text = None
    run: _Run | None = None
    data: _Data | None = None
    dropout: _Dropout | None = None
    trainer: _Trainer | None = None
    columns: list[_Column] | None = None
    callbacks: Section = None
    dropout_schedule: Section = None
    layers: Section = None
    logger: Section = None
    loss: Section = None
    lr_scheduler: Section = None
    model: Section = None
    more_dropout: dict[str, _More] | None = None
    module: Section = None
    optimizer: Section = None
    placement: Section = None


def as_written(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, once it is known to be of the form in which runs write theirs; keys may be missing.

    Raises:
        ValueError: the first value that is something else.
    """
    try:
        _Written.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r:.40}") from error
    return config
