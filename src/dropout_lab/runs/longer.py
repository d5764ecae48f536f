"""Going on with a run for longer than it was meant to be: ``resume=DIR trainer.max_epochs=MORE``, or ``max_steps``.

It ends as a run of that length would have, bit for bit. So there is no such thing where a setting depends on the length
of training, as the cosine of a learning rate does: the run would have been another one from its first step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, open_dict

from dropout_lab.cli import UserError
from dropout_lab.jobs.job import Job, resolved
from dropout_lab.jobs.overrides import WHOLE, flat
from dropout_lab.runs.folder import CONFIG, read_config, read_status
from dropout_lab.runs.identity import LENGTHS, fingerprints
from dropout_lab.runs.resume import require_own_run, resumed_by_name


def require_goes_on(folder: Path, job: Job, config_hash: str) -> None:
    """Refuse to touch the folder of a job that holds something else than this job, or than a shorter part of it.

    Args:
        folder: the run folder.
        job: planned; it names the folder in ``resume`` where it is to go on for longer.
        config_hash: its fingerprint.

    Raises:
        UserError: as :func:`require_own_run`; a setting that depends on the length; a run that has come further, that
            has ended by itself, or within an epoch.
    """
    resume = job.alike["resume"]
    before = _as_long_as(folder, job) if resumed_by_name(resume) else None
    require_own_run(folder, config_hash if before is None else fingerprints(before).run, resume)
    if before is not None:
        now = job.blank
        _require_independent(job, before, now)
        _require_common_start(folder, before, now)


def _as_long_as(folder: Path, job: Job) -> DictConfig | None:
    """The configuration of a job if it were as long as the run in a folder; None where it is, or there is no run."""
    if not (folder / CONFIG).is_file():
        return None
    theirs, config = read_config(folder).get("trainer") or {}, job.blank
    if all(config.trainer.get(key) == theirs.get(key) for key in LENGTHS):
        return None
    with open_dict(config.trainer):
        for key in LENGTHS:
            config.trainer.pop(key, None)
        config.trainer.update({key: theirs[key] for key in LENGTHS if key in theirs})
    return config


def _require_independent(job: Job, before: DictConfig, now: DictConfig) -> None:
    """Refuse another length where a setting has another value by it, or the drop probability another course."""
    from dropout_lab.jobs.build import instantiate
    from dropout_lab.jobs.build_errors import telling

    more = (now.get("more_dropout") or {}).items()
    others = {f"dropout_schedule@more_dropout.{name}.dropout_schedule": part.dropout_schedule for name, part in more}
    for key, node in {"dropout_schedule": now.dropout_schedule, **others}.items():
        with telling(now, key.rpartition("@")[2]):
            schedule = instantiate(node)
            course = {schedule(0.5, percent / 100) for percent in range(101)}
        if len(course) > 1:
            _refuse(now, f"{key}={job.choices.get(key, node['_target_'])}")
    old, new = flat(resolved(before)), flat(resolved(now))
    for key, value in new.items():
        follows = value == WHOLE and key.startswith("lr_scheduler.")
        if follows or (value != old.get(key) and key.removeprefix("trainer.") not in LENGTHS):
            _refuse(now, f"{key}={flat(job.written)[key]}")


def _require_common_start(folder: Path, before: DictConfig, now: DictConfig) -> None:
    """Refuse another length where a run of that length would not have come to where this one goes on from."""
    from dropout_lab.runs.checkpoints import newest
    from dropout_lab.runs.network import load_checkpoint

    if (path := newest(folder)) is None:
        return  # resuming says so
    checkpoint = load_checkpoint(path)
    progress: Mapping[str, Any] = checkpoint["loops"]["fit_loop"]
    epochs, steps = progress["epoch_progress"]["current"]["started"], checkpoint["global_step"]
    if 0 <= now.trainer.max_epochs < epochs or 0 <= now.trainer.get("max_steps", -1) < steps:
        _refuse_because(now, f"the run has come to {epochs} epochs and {steps} steps already")
    at_its_steps = steps == before.trainer.get("max_steps", -1)
    if at_its_steps and not progress["epoch_loop.batch_progress"]["is_last_batch"]:
        _refuse_because(now, f"trainer.max_steps={steps} has ended the run within an epoch, as no longer one would be")
    stopped = any(isinstance(each, dict) and each.get("stopped_epoch") for each in checkpoint["callbacks"].values())
    at_its_epochs = epochs == before.trainer.max_epochs
    if stopped or (read_status(folder)["status"] == "ok" and not (at_its_epochs or at_its_steps)):
        _refuse_because(now, f"the run has ended by itself after {epochs} epochs, and a longer one would have, too")


def _refuse(now: DictConfig, setting: str) -> NoReturn:
    _refuse_because(now, f"{setting} depends on the length of training: the run would have been another from its start")


def _refuse_because(now: DictConfig, reason: str) -> NoReturn:
    length = " ".join(f"trainer.{key}={now.trainer[key]}" for key in LENGTHS if key in now.trainer)
    raise UserError(
        f"resume={now.resume} {length}: {reason}; start_from={now.resume} in a folder of its own begins a new run with "
        "its weights"
    )
