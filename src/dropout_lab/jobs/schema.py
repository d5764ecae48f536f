"""The schema of a configuration: what its values may be, checked without importing torch.

It has the keys that are read before the first thing is built: by the planner, by launchers, or to start a job. With
them are those that nothing else refuses in words, as torch and Lightning take them: ``optimizer.lr`` and
``weight_decay``, ``loss.label_smoothing``, some of ``trainer``. What a class of this package takes it refuses itself,
in the same form, and the preflight passes that on: each rule is worded once. ``dropout.p``, which is swept most, has
the words of ``dropout_lab.dropout.layer`` here, too.

A fork's own keys pass through unchecked. Field descriptions are the error messages: "KEY=VALUE: must be DESCRIPTION".
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropout_lab.cli import UserError, nearest
from dropout_lab.jobs.overrides import FROM_CODE, PARTS, flat, no_such_part

Count = Annotated[int, Field(ge=1, description="an integer >= 1")]
Switch = Annotated[bool, Field(description="true or false")]
Node = Annotated[dict[str, Any], Field(description="chosen by an option of that group")]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Dropout(_Section):
    """Values of conf/dropout."""

    p: Annotated[float, Field(ge=0, lt=1, description="the probability to DROP a unit, a number with 0 <= p < 1")]


class Data(_Section):
    """Values of conf/data."""

    batch_size: Count


class Loss(_Section):
    """Values of conf/loss."""

    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="the share of the target for all classes, a number with 0 <= share < 1")
    ] = 0.0


class Optimizer(_Section):
    """Values of conf/optimizer."""

    lr: Annotated[float, Field(gt=0, description="a number > 0")] = 1.0
    weight_decay: Annotated[float, Field(ge=0, description="a number >= 0")] = 0.0
    no_decay: Annotated[
        list[Literal["bias", "norm", "dropout"]] | None, Field(description="a list of bias, norm and dropout, or null")
    ] = None
    match: Annotated[Literal["inverted"] | None, Field(description="inverted or null")] = None


class LrScheduler(_Section):
    """Values of conf/lr_scheduler."""

    interval: Annotated[Literal["epoch", "step"], Field(description="epoch or step")] = "epoch"


Time = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")] | dict[str, Any]  # days:hours:minutes:seconds


Batches = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None,
    Field(description="a number of batches >= 1, a fraction with 0 < fraction <= 1, or null"),
]


class Trainer(_Section):
    """Values of conf/trainer.

    Settings of Lightning that would leave a run without what makes it one have the one value that does not.
    """

    max_epochs: Annotated[
        Annotated[int, Field(ge=1)] | Literal[-1],
        Field(description="an integer >= 1, or -1: trainer.max_steps alone ends training"),
    ]
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu", "cuda", "mps"], Field(description="one of auto, cpu, gpu, cuda, mps")
    ] = "auto"
    strategy: Annotated[
        Literal["auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "fsdp"]
        | dict[str, Any],
        Field(
            description="auto, ddp, ddp_find_unused_parameters_true (or _false), fsdp, or one with a _target_, as its "
            "processes are started by this package, and checkpoints are one file each"
        ),
    ] = "auto"
    devices: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"], Field(description="a number of devices >= 1, or auto")
    ] = 1
    log_every_n_steps: Count = 50
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Annotated[float | None, Field(gt=0, description="a number > 0, or null")] = None
    gradient_clip_algorithm: Annotated[Literal["norm", "value"] | None, Field(description="norm, value or null")] = None
    num_nodes: Count = 1
    deterministic: Annotated[bool | Literal["warn"] | None, Field(description="true, false, warn or null")] = None
    benchmark: Annotated[bool | None, Field(description="true, false or null")] = None
    max_steps: Annotated[
        Annotated[int, Field(ge=1)] | Literal[-1], Field(description="a number of steps >= 1, or -1: no limit")
    ] = -1
    check_val_every_n_epoch: Annotated[
        int | None, Field(ge=1, description="an integer >= 1, or null: counted by val_check_interval")
    ] = 1
    val_check_interval: Annotated[
        Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | Time | None,
        Field(
            description="a number of batches >= 1, a fraction of an epoch with 0 < fraction <= 1, "
            "a time as in 00:00:10:00, or null"
        ),
    ] = None
    max_time: Annotated[Time | None, Field(description="a time as in 00:00:10:00 (days first), or null")] = None
    limit_train_batches: Batches = None
    limit_val_batches: Batches = None
    limit_test_batches: Batches = None
    profiler: Annotated[
        Literal["simple", "advanced", "pytorch"] | dict[str, Any] | None,
        Field(description="simple, advanced, pytorch, one with a _target_, or null"),
    ] = None
    fast_dev_run: Annotated[
        Literal[False], Field(description="false: debug=fast is a short run that leaves all of its files")
    ] = False
    barebones: Annotated[
        Literal[False], Field(description="false: nothing would be logged, nor any checkpoint written")
    ] = False
    overfit_batches: Annotated[Literal[0], Field(description="0: debug=overfit trains on the images of one batch")] = 0
    use_distributed_sampler: Annotated[
        Literal[False], Field(description="false: the data splits each batch over the devices itself")
    ] = False
    limit_predict_batches: Annotated[None, Field(description="null: training predicts nothing")] = None
    model_registry: Annotated[None, Field(description="null: no logger here has one")] = None
    enable_checkpointing: Annotated[
        None, Field(description="null: callbacks=[activation_stats,progress_bar] writes no checkpoints")
    ] = None


class Config(_Section):
    """Values of conf/train.yaml, a section for each group."""

    seed: Annotated[int, Field(ge=0, lt=2**32, description="an integer with 0 <= seed < 2^32")]
    replicates: Annotated[list[str], Field(description="a list of keys, as [data.split_seed]")] = []
    keyed: Switch
    compile: Switch
    channels_last: Switch
    other_noise: Annotated[Literal["remove", "keep"], Field(description="remove or keep")] = "remove"
    threads: Annotated[int | None, Field(ge=1, description="an integer >= 1, or null")]
    start_from: Annotated[
        str | None, Field(min_length=1, description="the folder of a run, one of its checkpoint files, or null")
    ] = None
    resume: Annotated[str, Field(min_length=1, description="auto, never or the folder of an interrupted run")]
    dropout: Dropout
    data: Data
    loss: Loss
    optimizer: Optimizer
    trainer: Trainer
    model: Node
    module: Node
    placement: Node
    dropout_schedule: Node
    lr_scheduler: LrScheduler
    callbacks: Node
    logger: Node


def validate(config: dict[str, Any]) -> None:
    """Make sure that every value of a resolved configuration is allowed.

    Raises:
        UserError: the first value that is not allowed, with what is.
    """
    try:
        Config.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        keys = _keys(config, first["loc"])
        if first["type"] == "missing":
            raise UserError(f"{'.'.join(keys)} is missing; it is {_description(keys)}") from error
        value = first["input"]
        raise UserError(
            f"{'.'.join(keys)}={'null' if value is None else value}: must be {_description(keys)}"
        ) from error
    _require_matchable(config)
    _require_end(config["trainer"])
    _require_known_epochs(config)
    _require_replicates(config)
    for section, names in FROM_CODE.items():
        for name in names:
            if name in config[section]:
                raise UserError(f"{section}.{name}: is not for the configuration to give; leave it out")
    for name, part in (config.get("more_dropout") or {}).items():
        for key in ("dropout", "placement", "dropout_schedule"):
            if not isinstance(part, dict) or not isinstance(part.get(key), dict):
                chosen = f"'+{key}@more_dropout.{name}.{key}=OPTION'"
                raise UserError(f"more_dropout.{name}: has no {key}; see conf/more_dropout, or add one with {chosen}")
    for group in PARTS:
        for name, node in config[group].items():
            if node is None:
                raise UserError(f"{group}.{name}=null: leave it out, '~{group}.{name}'")
            if isinstance(node, dict) and "_target_" not in node:
                raise UserError(no_such_part(group, name))


def _require_matchable(config: dict[str, Any]) -> None:
    """Refuse matched training, which rescales single weights, where something mixes them all."""
    if config["optimizer"].get("match") is not None and config["trainer"].get("gradient_clip_val") is not None:
        raise UserError(
            "optimizer.match=inverted: clipping by the global norm mixes the rescaled weights with the others, so no "
            "matched training exists; set trainer.gradient_clip_val=null or optimizer.match=null"
        )


def _require_replicates(config: dict[str, Any]) -> None:
    """Refuse to average over a key that there is not; those of data sets are taken with any."""
    there = [*flat(config), "data.fold", "data.split"]  # the last two are taken with any data set
    for key in config.get("replicates", ()):
        if key not in there:
            raise UserError(f"replicates: there is no key {key}; {nearest(key, there)}take keys of single values")


def _require_end(trainer: dict[str, Any]) -> None:
    """Refuse a training without end, whose schedules would have no length."""
    if trainer["max_epochs"] == trainer.get("max_steps", -1) == -1:
        raise UserError("trainer.max_epochs=-1: trainer.max_steps=N ends training then: set it, too")


def _require_known_epochs(config: dict[str, Any]) -> None:
    """Refuse a cutoff in epochs where steps end the training, which then has as many epochs as they fill."""
    cutoff = config["dropout_schedule"].get("cutoff_epoch")
    if cutoff is not None and config["trainer"].get("max_steps", -1) != -1:
        raise UserError(
            f"dropout_schedule.cutoff_epoch={cutoff}: must be null where trainer.max_steps ends training; give "
            "dropout_schedule.cutoff, a part of it"
        )


def _keys(config: dict[str, Any], loc: tuple[int | str, ...]) -> list[str]:
    """The path of a value in the configuration, to which pydantic adds the names of a union's members."""
    keys: list[str] = []
    node: Any = Config
    for part in loc:
        if not (isinstance(node, type) and issubclass(node, BaseModel)):
            break
        keys.append(str(part))
        node = node.model_fields[str(part)].annotation
    return keys


def _description(keys: list[str]) -> str:
    model: type[BaseModel] = Config
    for key in keys[:-1]:
        model = model.model_fields[key].annotation  # type: ignore[assignment]
    return model.model_fields[keys[-1]].description or "a section of keys"
