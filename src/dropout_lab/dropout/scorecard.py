"""The scorecard of a dropout layer: ``print(check(layer))``, for ours, torch's, timm's or your own.

The laws that it is held against, and how each is measured, are in ``laws.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from dropout_lab.dropout.laws import LAWS, Subject, Verdict


class Law(NamedTuple):
    """One law on the scorecard; `holds` is None where it does not apply."""

    name: str
    holds: bool | None
    measured: str

    def __str__(self) -> str:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "does not apply"}[self.holds]
        return f"{self.name:<16}{verdict:<16}{self.measured}"


@dataclass(frozen=True)
class Scorecard:
    """The laws that a layer keeps and breaks, as :func:`check` found them; its text is a table with a line for each."""

    layer: str
    laws: tuple[Law, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the laws that do not hold."""
        return [law.name for law in self.laws if law.holds is False]

    def __str__(self) -> str:
        return "\n".join([self.layer, *(f"  {law}" for law in self.laws)])


def check(
    layer: nn.Module,
    *,
    p: float | None = None,
    shape: Sequence[int] = (1024, 3, 9, 10),
    laws: Collection[str] | None = None,
) -> Scorecard:
    """Test a dropout layer against the laws listed at the top of ``laws.py``; takes about a second.

    In a test of your own: ``assert not check(layer).failed``. The layer itself and torch's generator stay as they are.

    Args:
        layer: takes one tensor and returns one of the same shape. What its scaling promises is read from its attribute
            `scaling` (or timm's `scale_by_keep`); without one, inverted dropout is presumed.
        p: its probability to drop; by default its attribute `p`, or `drop_prob` as timm calls it.
        shape: of the inputs, (N, ...). All N samples count as independent, so N makes the statistics sharp.
        laws: names of the laws to look at; None is all of them.

    Raises:
        ValueError: the layer has no probability to read and none is given; p outside [0, 1); an unknown scaling or law.
    """
    unknown = sorted(set(laws or ()) - set(LAWS))
    if unknown:
        raise ValueError(f"check: no law is called {', '.join(unknown)}; there are {', '.join(LAWS)}")
    subject = Subject(layer, p, shape)
    chosen = LAWS if laws is None else {name: law for name, law in LAWS.items() if name in laws}
    with torch.random.fork_rng(devices=[]):
        found = tuple(_judge(name, law, subject) for name, law in chosen.items())
    return Scorecard(f"{layer}: p = {subject.p:.4g}, {subject.scaling}", found)


def _judge(name: str, law: Callable[[Subject], Verdict], subject: Subject) -> Law:
    try:
        return Law(name, *law(subject))
    except Exception as error:  # any error of the layer is a finding, and the other laws are still of interest
        return Law(name, False, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
