"""A Hydra sweeper with named arms: overrides that belong together, crossed with everything else that is swept.

Hydra's own sweeper makes every combination of every key. A comparison often needs a list instead: "classic with the
matched optimizer" is one arm, not a point on a grid. Imports nothing heavy: Hydra loads every plugin at start-up.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException


class ArmsSweeper(BasicSweeper):
    """Hydra's basic sweeper times ``arms``.

    Args:
        params: key -> values swept by default; the command line replaces them.
        arms: name -> overrides, e.g. ``{"classic_matched": "dropout=classic optimizer.match=inverted"}``. Each job
            also gets ``arm=<name>``. A key that all arms set, given on the command line, replaces the arms.
        max_batch_size: jobs handed to the launcher at a time; None: all.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        arms: Mapping[str, str] | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=dict(params or {}))
        self.arms = arms or {}

    def jobs(self, overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[list[str]]:
        """The overrides of every job of a sweep, without starting it: by this method a plan knows its jobs.

        Args:
            overrides: those of the command line, swept ones included.
            loader: knows the names that ``glob(...)`` stands for; None: there is no such override.
        """
        parsed = OverridesParser.create(loader).parse_overrides([*self._parse_config(), *overrides])
        return [job for batch in self.split_arguments(parsed, None) for job in batch]

    def split_arguments(  # type: ignore[override]  # static in the base class, which calls it on self
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs of the sweep, in batches; where they were planned, those that were."""
        loader = self.hydra_context and self.hydra_context.config_loader
        jobs = getattr(loader, "planned", None)  # not again: some may be left out, and shuffle(...) has another order
        if jobs is None:
            grid = BasicSweeper.split_arguments(overrides, None)[0]
            jobs = [arm + job for arm in self._arms(overrides) for job in grid]
        return list(self.split_overrides_to_chunks(jobs, max_batch_size)) if jobs else []

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing to do: every job was composed and validated before Hydra started."""

    def _arms(self, overrides: list[Override]) -> list[list[str]]:
        arms = {name: shlex.split(text) for name, text in self.arms.items()}
        keys = {name: {override.split("=")[0] for override in arm} for name, arm in arms.items()}
        for key in (str(override.key_or_group) for override in overrides):
            setters = [name for name in arms if key in keys[name]]
            if setters and len(setters) == len(arms):
                return [[]]
            if setters:
                raise ConfigCompositionException(
                    f"{key} is set by {', '.join(setters)} of this sweep; leave it out, "
                    "or write a sweep with other arms into conf/sweep"
                )
        return [[*arm, f"arm={name}"] for name, arm in arms.items()] or [[]]
