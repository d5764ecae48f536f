"""Old names of what a configuration builds, by which runs of earlier versions are still read."""

from collections.abc import Mapping
from typing import Any

_LOGGERS = {f"dropout_lab.loggers.{kind}": f"dropout_lab.runs.loggers.{kind}" for kind in ("Csv", "TensorBoard")}
_CHECKPOINTS = {
    f"dropout_lab.checkpoints.{kind}": f"dropout_lab.runs.checkpoints.{kind}"
    for kind in ("Checkpoint", "EndOfEpoch", "WithinEpoch")
}
OLD_TARGETS = {  # what conf/ named before the package had rooms -> where it is now
    **_LOGGERS,
    **_CHECKPOINTS,
    "dropout_lab.averaging.WeightAveraging": "dropout_lab.train.recipes.weight_averaging.WeightAveraging",
    "dropout_lab.bar.ProgressBar": "dropout_lab.train.progress.ProgressBar",
    "dropout_lab.loggers.Wandb": "dropout_lab.runs.wandb_logger.Wandb",
    "dropout_lab.max_norm.MaxNorm": "dropout_lab.train.recipes.max_norm.MaxNorm",
    "dropout_lab.torchvision_models.torchvision_model": "dropout_lab.models.torchvision.torchvision_model",
    "dropout_lab.warmup.warmup_cosine": "dropout_lab.train.recipes.warmup.warmup_cosine",
    "dropout_lab.wide_resnet.WideResNet": "dropout_lab.models.wide_resnet.WideResNet",
}


def renewed(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """A configuration in plain containers, every ``_target_`` in it as it is called today, its module what it was."""
    classifier = {"_target_": "dropout_lab.modules.classification.Classifier", "loss": config.get("loss")}
    return {**_renewed(config), "module": _renewed(config.get("module", classifier))}


def _renewed(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {
            key: OLD_TARGETS.get(value, value) if key == "_target_" and isinstance(value, str) else _renewed(value)
            for key, value in node.items()
        }
    return [_renewed(each) for each in node] if isinstance(node, list) else node


def has_old_targets(node: Any) -> bool:
    """Whether a configuration names anything by an old name, so that an earlier version has written it."""
    return bool(renewed(node) != node)
