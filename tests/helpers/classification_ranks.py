"""What test_classifier_ranks.py has 1 and 2 processes do: train and test one network on the same global batches."""

import warnings
from pathlib import Path

import lightning
import torch
from classifying import trainable

from dropout_lab.activations import ActivationStats
from dropout_lab.data import Synthetic
from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.jobs.devices import environment, together
from dropout_lab.models.small import MLP
from dropout_lab.modules.classification import Classifier
from dropout_lab.runs.loggers import Csv
from dropout_lab.train.recipes.max_norm import MaxNorm
from dropout_lab.train.recipes.weight_averaging import WeightAveraging

ADVICE = (
    ".*`srun` command is available",
    ".*does not have many workers",
    ".*smaller than the logging interval",
    ".*LeafSpec",
    ".*litlogger",
)


def run(folder: Path) -> None:
    warnings.simplefilter("error")  # what Lightning says of synchronising would be about us
    for message in ADVICE:
        warnings.filterwarnings("ignore", message)
    torch.set_num_threads(1)
    lightning.seed_everything(0, verbose=False)
    # 33 samples to validate: 2 processes have different numbers of them
    data = Synthetic(
        size=165, shape=[1, 3, 3], num_classes=3, noise=2.0, batch_size=4, seed=1, val_fraction=0.2, mixup=0.5
    )
    net = MLP((1, 3, 3), 3, widths=(16, 16))
    install(net, Dropout, Placement(p=0.5))
    trainer = lightning.Trainer(
        default_root_dir=folder,
        callbacks=[
            # of validation batches of 17 and 16 samples
            ActivationStats(every_n_steps=3, probe_size=20, path=folder / "activations.csv"),
            MaxNorm(0.5),
            WeightAveraging(decay=0.9),
        ],
        logger=Csv(str(folder)),
        max_epochs=2,
        log_every_n_steps=7,
        accelerator="cpu",
        devices=together(),
        strategy="ddp" if together() > 1 else "auto",
        plugins=[environment()],
        precision="64-true",
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    classifier = trainable(Classifier(net, seed=2))
    trainer.fit(classifier, data)
    trainer.test(classifier, data, verbose=False)
