"""Preflight: what every job needs is built before the first one starts, so that what fails is one line.

Each part is built as the job will, but what is for its own processes is left alone: devices, groups, files.
"""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.data import DataModule
from dropout_lab.jobs.build import (
    build_data,
    build_lr_scheduler,
    build_module,
    build_network,
    build_optimizer,
    build_rates,
    instantiate,
)
from dropout_lab.jobs.build_errors import telling
from dropout_lab.jobs.job import Job
from dropout_lab.runs.start_from import start
from dropout_lab.train.length import batches, planned_length, require_validation
from dropout_lab.train.trainer import try_trainer
from dropout_lab.train.trial import ROWS, require_step

# What a network with its dropout depends on, and what its training does besides.
NETWORK = "data model module channels_last dropout placement more_dropout other_noise"
TRAINING = "optimizer lr_scheduler trainer"

_batches: dict[str, int] = {}  # of an epoch, by data and model; known once the data was built


def refusals(jobs: Sequence[Job]) -> dict[int, str]:
    """Build all that the jobs of a sweep will.

    Each part is built once for all the jobs in which what it depends on is the same but for p, learning rate and seed;
    a dropout layer is made for each p. Of the networks there is one at a time.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
    once = _Once()
    found: dict[int, str] = {}
    networks: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        data = once(data_of, job, "data model")
        once(try_trainer, job, "trainer callbacks logger module")
        once(try_loss, job, "loss module")
        once(require_validated, job, "data model trainer", data)
        if reason := once(why_no_layer, job, "dropout placement more_dropout", p=job.varied.get("dropout.p")):
            found[number] = reason
        else:
            networks.setdefault(_key(job, NETWORK), []).append(number)
    for numbers in networks.values():
        data = once(data_of, jobs[numbers[0]], "data model")
        net = network_of(jobs[numbers[0]], data)
        for number in numbers:
            if reason := net if isinstance(net, str) else _why_not(jobs[number], once, data, net):
                found[number] = reason
    return dict(sorted(found.items()))


def _why_not(job: Job, once: "_Once", data: DataModule, net: nn.Module) -> str | None:
    """Why a job's network can't be trained as asked; None where it can."""
    reason: str | None = once(why_no_step, job, f"{NETWORK} keyed compile", data, net)
    reason = reason or (job.written["start_from"] and _why_no_start(job, once, data))
    reason = reason or once(why_no_schedule, job, f"{NETWORK} dropout_schedule", net)
    return reason or once(why_untrainable, job, f"{NETWORK} {TRAINING}", data, net)


def batches_of(job: Job) -> int:
    """How many batches an epoch of a job has, whose data was built."""
    return _batches[_key(job, "data model")]


class _Once:
    """The answers of a question about a job, by the parts of a configuration that it looks at."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}

    def __call__(self, check: Callable[..., Any], job: Job, parts: str, *arguments: Any, p: object = None) -> Any:
        key = f"{check.__name__} {_key(job, parts)} {p}"
        if key not in self._answers:
            self._answers[key] = check(job, *arguments)
        return self._answers[key]


def _key(job: Job, parts: str) -> str:
    """Parts of a job's configuration, but for what changes from job to job more than anything else."""
    return json.dumps([job.alike.get(part) for part in parts.split()], default=str)


def data_of(planned: Job) -> DataModule:
    """The data module of a job, set up."""
    job = planned.blank
    with telling(job, "data"):
        data: DataModule = build_data(job)
        data.setup("fit")
        _batches[_key(planned, "data model")] = len(data.train_dataloader())
    return data


def require_validated(planned: Job, data: DataModule) -> None:
    """Refuse limits of a job by which an epoch has no batch, or training no validation."""
    trainer = planned.alike["trainer"]
    epoch = batches(trainer, "train", batches_of(planned))
    for part in ("val", "test"):
        if isinstance(trainer.get(f"limit_{part}_batches"), float):
            data.setup("test")
            loaders = getattr(data, f"{part}_dataloader")()
            for loader in loaders if isinstance(loaders, list) else [loaders]:
                batches(trainer, part, len(loader))
    require_validation(trainer, epoch)


def try_loss(planned: Job) -> None:
    """Build a job's loss; whether it suits what it gets is seen in a step. Refuse one that its module does not take."""
    job = planned.blank
    chosen = next((word for word in planned.words if word.lstrip("+").startswith(("loss=", "loss."))), None)
    if chosen and "${loss" not in str(planned.written):
        raise UserError(f"{chosen}: module={planned.choices['module']} has a loss of its own; leave this out")
    with telling(job, "loss"):
        instantiate(job.loss)


def network_of(planned: Job, data: DataModule) -> nn.Module | str:
    """The network of a job with its dropout; or why it can't be built."""
    job = planned.blank
    try:
        with telling(job):
            return build_network(job, data).net
    except UserError as error:
        return str(error)


def why_no_step(planned: Job, data: DataModule, net: nn.Module) -> str | None:
    """Why a job's network can't take a step of training and be measured; None where it can."""
    job = planned.blank
    try:
        with telling(job):
            module = build_module(job, net)
            if job.compile and module.passes > 1:
                raise UserError("module: several passes in a step are not compiled; leave compile=true out")
            module.adapt_to(data)
            module.begin(data)
            quiet = job.keyed and job.other_noise == "remove"
            require_step(module, data.example(ROWS, training=True), data.example(ROWS), job.keyed, quiet)
    except UserError as error:
        named = str(error).startswith(("loss: ", "module: ", "module."))
        return str(error) if named else f"a training step fails: {error}"
    return None


def why_no_layer(planned: Job) -> str | None:
    """Why no dropout layer can be made with a job's p; None where it can."""
    job = planned.blank
    more = (job.get("more_dropout") or {}).items()
    try:
        for key, part in {"": job, **{f"more_dropout.{name}.": part for name, part in more}}.items():
            with telling(job, f"{key}dropout"):
                instantiate(part.dropout)(p=part.dropout.p)
            with telling(job, f"{key}placement"):
                instantiate(part.placement)
    except UserError as error:
        return str(error)
    return None


def _why_no_start(job: Job, once: "_Once", data: DataModule) -> str | None:
    """Why a job's network can't start from another run, which depends on its p, and on a seed that names the run."""
    p = f"{job.varied.get('dropout.p')} {job.own.start_from}"
    return once(why_no_start, job, f"{NETWORK} optimizer", data, p=p)  # type: ignore[no-any-return]


def why_no_start(planned: Job, data: DataModule) -> str | None:
    """Why a job's network can't be given the weights of the run that it starts from; None where it can."""
    job = planned.blank
    try:
        with telling(job):
            start(build_module(job, build_network(job, data).net), job, data)
    except UserError as error:
        return str(error)
    return None


def why_no_schedule(planned: Job, net: nn.Module) -> str | None:
    """Why a job's network can't have other rates as time goes on; None where it can."""
    job = planned.blank
    try:
        with telling(job, "dropout_schedule"):
            build_rates(job, net)
    except UserError as error:
        return str(error)
    return None


def why_untrainable(planned: Job, data: DataModule, net: nn.Module) -> str | None:
    """Why a job's network can't be trained as asked; None where it can."""
    job = planned.blank
    net = copy.deepcopy(net) if job.optimizer.get("match") else net  # which changes it
    try:
        with telling(job, "optimizer"):
            optimizer = build_optimizer(job, build_module(job, net), data)
        with telling(job, "lr_scheduler"):
            length = planned_length(job.trainer, batches_of(planned))
            made = build_lr_scheduler(job, optimizer, length.epochs, length.steps)
            times = length.steps if made["interval"] == "step" else length.epochs
            for _ in range(min(times, 1000)):  # what is wrong with its values shows only then
                made["scheduler"].step()
    except UserError as error:
        return str(error)
    return None
