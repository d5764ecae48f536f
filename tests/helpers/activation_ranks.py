"""What test_activation_ranks.py has 1, 2 and 4 processes do: count the same data, however it is divided."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import lightning as L
import torch
from small_networks import convolutional
from torch import nn

from dropout_lab.activations import ActivationStats, Meter, Tap
from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.jobs.devices import environment, rank, together

BATCH = 16  # of which the probe takes 6: of 2 processes the second has none of them, of 4 they have 4, 2, 0 and 0


def uneven_shards() -> dict[str, dict]:
    """What a meter says of 53 samples that the ranks share unevenly, in uneven batches."""
    layers = nn.ModuleDict({"fp32": nn.Identity(), "fp64": nn.Identity(), "drop": nn.Identity()})
    meter = Meter([*(Tap(name, layer) for name, layer in layers.items()), Tap("drop_in", layers["drop"], "input")])
    meter.attach()
    data = (torch.randn(53, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 5).relu()
    cuts = {1: [53], 2: [37, 16], 4: [20, 3, 29, 1]}[together()]
    for batch in data.split(cuts)[rank()].split(10 if rank() % 2 else 7):
        meter.start("train")
        layers["fp32"](batch)
        layers["fp64"](batch.double())
        layers["drop"](batch)
        meter.stop()
    readings = meter.flush()
    found = {name: asdict(one) for name, one in readings.stats("train").items()}
    return found | {"gain": readings.gains("train")["drop"]._asdict()}


class Shards(L.LightningDataModule):
    """Each rank's contiguous rows of every global batch."""

    def loader(self):
        x = torch.randn(64, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        mine = BATCH // together()
        batches = [batch[rank() * mine : (rank() + 1) * mine] for batch in x.split(BATCH)]
        return torch.utils.data.DataLoader(batches, batch_size=None)

    train_dataloader = val_dataloader = loader


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = convolutional(Dropout(0.3, mask="channel"), size=6)
        self.net.insert(4, Dropout(0.5))
        self.double()

    def forward(self, x):
        return self.net(x)

    def training_step(self, x, batch_idx):
        rows = torch.arange(len(x)) + rank() * len(x)
        with mask_keys(7, self.global_step, rows):
            return self.net(x).square().mean()

    def validation_step(self, x, batch_idx):
        self.net(x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path) -> list[int]:
    """Leaves folder/activations.csv; returns the sizes of the messages that statistics took."""
    calls, reduce = [], torch.distributed.all_reduce

    def counted(tensor, *args, **kwargs):
        if tensor.numel() > 1:  # Lightning's own carry single numbers
            calls.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    L.seed_everything(0, verbose=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        default_root_dir=folder,
        callbacks=[ActivationStats(every_n_steps=2, probe_size=6, path=folder / "activations.csv")],
        max_epochs=2,
        accelerator="cpu",
        devices=together(),
        strategy="ddp" if together() > 1 else "auto",
        plugins=[environment()],
        use_distributed_sampler=False,
        num_sanity_val_steps=1,
        logger=False,
        **quiet,
    )
    torch.distributed.all_reduce = counted
    trainer.fit(Net(), Shards())
    return list(calls)


def count(folder: Path) -> None:
    warnings.simplefilter("ignore")  # Lightning's advice
    torch.set_num_threads(1)
    collectives = fit(folder)  # opens the process group
    result = {"uneven": uneven_shards(), "collectives": collectives}
    (folder / f"rank{rank()}.json").write_text(json.dumps(result))
