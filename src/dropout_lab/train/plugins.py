"""Plugins of Hydra that run a sweep, tried before anything starts: its sweeper and its launcher."""

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from dropout_lab.cli import UserError, root_cause
from dropout_lab.jobs.plan import Plan

DIRECTIONS = {"min": "minimize", "max": "maximize"}  # mode of a callback -> what a search does


def try_plugins(node: DictConfig) -> None:
    """Try to make the plugins that Hydra will make to run a sweep: it would say later, in many lines, why it can't.

    Args:
        node: ``hydra`` of a configuration.
    """
    for part in ("sweeper", "launcher"):
        try:
            Plugins.instance()._instantiate(node[part])
        except Exception as error:
            name = node.runtime.choices[f"hydra/{part}"]
            raise UserError(f"hydra/{part}={name}: it can't be made: {root_cause(error)}") from error


def require_direction(job_plan: Plan) -> None:
    """Refuse a search for the worst: a job's objective is the best value of what its best checkpoint is chosen by."""
    direction = job_plan.base.hydra.sweeper.get("direction")
    best = job_plan.base.callbacks.get("checkpoint") or {}
    wanted = DIRECTIONS.get(str(best.get("mode")))
    if isinstance(direction, str) and wanted not in (None, direction):
        raise UserError(
            f"hydra.sweeper.direction={direction}: the objective is {best.get('monitor')}, chosen with "
            f"callbacks.checkpoint.mode={best.get('mode')}; set hydra.sweeper.direction={wanted}"
        )
