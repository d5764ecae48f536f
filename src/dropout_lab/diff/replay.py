"""Replay of a run's first steps from its configuration, with a fingerprint of all that goes into a step and comes out.

Data order and masks are functions of (seed, step), so the first steps of a run can be had again at any time, on the
CPU and in one process, whatever the run was trained on.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.utils import get_class
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dropout_lab.activations.callback import ActivationStats
from dropout_lab.cli import UserError, root_cause
from dropout_lab.dropout import Dropout
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.jobs.allowed import without_network
from dropout_lab.jobs.build import instantiate
from dropout_lab.train.job import assemble
from dropout_lab.train.recipes.divergence import Divergence
from dropout_lab.train.runtime import quieten_lightning, set_threads


class Event(NamedTuple):
    """An event of a training step, something that two runs can agree on.

    ``what`` is "weights" (before the step), "samples" (which), "images", "classes", "mask", "output", "loss" or
    "gradient"; ``where`` is the parameter or layer, "" where there is no choice.
    """

    step: int
    what: str
    where: str
    digest: bytes


def replay(config: DictConfig, steps: int) -> list[Event]:
    """Train the first steps of a run again and record what happens, in order.

    Args:
        config: the resolved configuration of a run folder.
        steps: how many micro-batches.

    Returns:
        what went into these steps and what came out of them.

    Raises:
        UserError: the data is not where it was, or something else of the run cannot be made again.
    """
    run = (config.get("run") or {}).get("dir") or "the run"
    if without_network(config, run) != config:
        raise UserError(f"{run}: it cannot be trained again: its first weights came from a network")
    try:
        return _events(config, steps)
    except Exception as error:
        raise UserError(f"{run}: it cannot be trained again: {root_cause(error)}") from error


def _events(config: DictConfig, steps: int) -> list[Event]:
    """What happens in the first steps of a run, trained again."""
    quieten_lightning()
    set_threads(config.threads)
    # Hooks of compiled models are traced into the graph.
    classifier, data, network = assemble(OmegaConf.merge(config, {"compile": False}))  # type: ignore[arg-type]
    data.setup()
    recorder = _Recorder(steps, {path: name for name, path in network.layers.items()})
    with tempfile.TemporaryDirectory() as folder, recorder.listening(classifier.net):
        own = OmegaConf.create(_moved(OmegaConf.to_container(config.callbacks), config.run.dir, folder))
        own = {name: node for name, node in own.items() if not _is_of_training_alone(node)}
        callbacks = [instantiate(node) for node in own.values()]
        trainer = instantiate(
            config.trainer,
            accelerator="cpu",
            devices=1,
            num_nodes=1,
            strategy="auto",
            logger=[CSVLogger(folder)],  # some callbacks insist on one
            callbacks=[recorder, *callbacks],
            profiler=None,
            enable_checkpointing=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(classifier, data)
    return recorder.events


def _is_of_training_alone(callback: DictConfig) -> bool:
    """Whether a callback has no part in what happens in a step: it writes files, shows progress, or ends it."""
    return issubclass(get_class(callback["_target_"]), ActivationStats | Checkpoint | Divergence | ProgressBar)


def _moved(node: Any, run: str, folder: str) -> Any:
    """A part of a configuration, its files in another folder where they were in the run's own."""
    if isinstance(node, dict):
        return {key: _moved(value, run, folder) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, run, folder) for value in node]
    return node.replace(run, folder) if isinstance(node, str) else node


class _Recorder(L.Callback):
    """A callback that records the events of the first steps, then ends the training."""

    def __init__(self, steps: int, names: dict[str, str]) -> None:
        self.steps, self.names = steps, names
        self.events: list[Event] = []
        self.step = 0
        self.active = False
        self._order: list[Tensor] = []

    @contextmanager
    def listening(self, net: nn.Module) -> Iterator[None]:
        """Record the masks and outputs of all layers of a network, within the context."""
        places: dict[nn.Module, str] = {}
        with ExitStack() as stack:
            for path, module in net.named_modules():
                where = getattr(module, "name", None) or self.names.get(path, path)
                if isinstance(module, Dropout):
                    module.draw = self._hearing(module.draw, where)  # type: ignore
                    stack.callback(delattr, module, "draw")
                if next(module.children(), None) is None or isinstance(module, Dropout):
                    places[module] = where

            def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                if self.active and isinstance(output, Tensor):
                    self._add("output", places[module], output)

            stack.enter_context(intercepting(places, after=after))
            yield

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.train_dataloader is not None
        self._order = list(trainer.train_dataloader.sampler)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for name, value in pl_module.net.state_dict().items():
            self._add("weights", name, value)
        self._add("samples", "", self._order[batch_idx])
        self._add("images", "", batch[0])
        self._add("classes", "", batch[1])
        self.active = True

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.active = False
        self._add("loss", "", loss)

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        for name, parameter in pl_module.net.named_parameters():
            if parameter.grad is not None:
                self._add("gradient", name, parameter.grad)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.step += 1
        trainer.should_stop = self.step == self.steps

    def _hearing(self, draw: Callable[[Tensor], Tensor], where: str) -> Callable[[Tensor], Tensor]:
        """The function that draws a layer's noise, recording what it draws."""

        def heard(x: Tensor) -> Tensor:
            noise = draw(x)
            if self.active:
                self._add("mask", where, noise)
            return noise

        return heard

    def _add(self, what: str, where: str, value: Tensor) -> None:
        """Record a tensor by a fingerprint of its type, shape and numbers."""
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        shape = f"{value.dtype} {tuple(value.shape)}".encode()
        self.events.append(Event(self.step, what, where, blake2b(shape + content.tobytes(), digest_size=8).digest()))
