"""The trained network of a run: from its folder alone back to the network, its weights and its data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError
from torch import nn

from dropout_lab.cli import UserError, nearest, root_cause
from dropout_lab.dropout import rates_of, require_same_rates
from dropout_lab.dropout.schedules import SavedRate
from dropout_lab.jobs.allowed import without_network
from dropout_lab.jobs.build import build_data, build_network
from dropout_lab.models.weights import why_unread
from dropout_lab.runs.folder import CONFIG, checkpoint, checkpoints, read_config
from dropout_lab.runs.intact import require_whole, warn_of_edits


class Saved(NamedTuple):
    """What a checkpoint holds of a module.

    Attributes:
        net: the weights of its network.
        rates: of the dropout layers, to which the weights belong.
        rest: the state of the module's other children, a noise scale for one.
    """

    net: dict[str, torch.Tensor]
    rates: dict[str, SavedRate]
    rest: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Restored:
    """A trained network in eval mode, with its run's configuration and its data, set up."""

    config: DictConfig
    net: nn.Module
    saved: Saved  # its weights in the precision that they were trained in, and the state of its module's other children
    data: Any  # the run's data module, as those of dropout_lab.data


def restore(folder: Path, name: str = "best") -> Restored:
    """Restore a run's network, with its dropout layers and its weights.

    Args:
        folder: the run folder.
        name: of the checkpoint, "best" (in validation), "last", or that of any other file.

    Raises:
        UserError: no such folder, file or checkpoint, data that is not there, weights that do not fit the network, or a
            configuration that names what is not built for a folder.
    """
    config = read_config(folder)
    warn_of_edits(folder, CONFIG)
    saved = read_weights(folder, name)
    config = without_network(config, folder / CONFIG)
    with built_from(folder):
        data = build_data(config)
        data.setup()
        net = build_network(config, data).net
    try:
        require_same_rates(net, saved.rates or rates_of(net))
        net.load_state_dict(saved.net)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: the weights of {name}.ckpt do not fit the run's model: {reason}") from error
    return Restored(config, net.eval(), saved, data)


@contextmanager
def built_from(folder: Path) -> Iterator[None]:
    """Tell in one line what of a run's configuration can't be used within: it may be damaged, or of other code.

    Raises:
        UserError: something can't be, above all data that is no longer where it was.
    """
    try:
        yield
    except UserError:
        raise
    except ConfigAttributeError as error:
        raise UserError(f"{folder}: its configuration is of other code, which had no {error.full_key}") from error
    except Exception as error:
        raise UserError(f"{folder}: what it was made of cannot be made again: {root_cause(error)}") from error


def read_weights(folder: Path, name: str) -> Saved:
    """The weights in a run's checkpoint, on the CPU, and the rates that they belong to.

    Raises:
        UserError: a file that is missing or cannot be read.
    """
    path, there = checkpoint(folder, name), [found.stem for found in checkpoints(folder)]
    if name not in there:
        offered = f"{nearest(name, there)}there is {', '.join(f'ckpt={each}' for each in there)}"
        raise UserError(f"ckpt={name}: {path} does not exist; {offered if there else 'the run saved none'}")
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> Saved:
    """The weights in a checkpoint file, on the CPU, and the rates that they belong to.

    Raises:
        UserError: it cannot be read.
    """
    whole = load_checkpoint(path)
    state = whole["state_dict"]
    net = {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}
    rest = {key: value for key, value in state.items() if not key.startswith("net.")}
    return Saved(net, whole.get("dropout_rates", {}), rest)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """All that a checkpoint file holds, on the CPU, once it is known to be whole: memory maps are not checked.

    Raises:
        UserError: it cannot be read, or is not as its run left it.
    """
    require_whole(path)
    try:
        whole: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(whole["state_dict"], dict):
            raise ValueError("it holds no weights")
    except Exception as error:  # whatever a broken file makes of the reader
        raise UserError(f"{path} cannot be read: {why_unread(error)}") from error
    return whole
