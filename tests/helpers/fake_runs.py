"""Run folders in the exact format training leaves behind, with numbers chosen by the test."""

import csv
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]

KINDS: dict[str, dict[str, Any]] = {
    "inverted": {"scaling": "inverted"},
    "classic": {"scaling": "classic"},
    "unscaled": {"scaling": "unscaled"},
    "spatial": {"mask": "channel", "elsewhere": "element"},
    "none": {},
}
CHOICES = {"data": "digits", "model": "cnn", "optimizer": "sgd", "placement": "existing", "trainer": "auto"}
ROW = ("epoch", "step")
LAYERS = ("01_conv1_dropout", "04_conv2_dropout", "08_hidden_dropout")


def write_run(
    folder: Path,
    *,
    kind: str = "inverted",
    arm: str | None = None,
    label: str | None = None,
    choices: dict[str, str] | None = None,
    seed: int = 0,
    p: float = 0.5,
    final: dict[str, float] | None = None,
    layers: tuple[str, ...] = LAYERS,
    rates: tuple[float, ...] | None = None,
    epochs: int = 10,
    status: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder; ``final`` overrides the last value of scalar metrics, ``rates`` the recorded p of layers.

    By itself its label is that of a job in a sweep over arms or kinds: all else that was typed, all jobs have.
    """
    folder.mkdir(parents=True)
    label = label or arm or kind
    steps = [9 * (epoch + 1) for epoch in range(epochs)]
    dropout = {
        "_target_": "dropout_lab.dropout." + ("none" if kind == "none" else "Dropout"),
        "_partial_": True,
        "p": p,
    }
    (folder / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "seed": seed,
                "arm": arm,
                "dropout": dropout | KINDS[kind],
                "placement": {
                    "_target_": "dropout_lab.dropout.Placement",
                    "where": "existing",
                    "p": p,
                    "rate": "constant",
                },
                "model": {"_target_": "dropout_lab.models.cnn", "width": 32},
                "data": {"_target_": "dropout_lab.data.Digits", "batch_size": 128, "seed": seed, "split_seed": 0},
                "optimizer": {
                    "_target_": "torch.optim.SGD",
                    "lr": 0.1,
                    "match": "inverted" if arm == "classic_matched" else None,
                },
                "trainer": {"max_epochs": epochs},
                "run": {
                    "dir": str(folder),
                    "label": label,
                    "name": f"{label} seed={seed}",
                    "choices": CHOICES | {"dropout": kind} | (choices or {}),
                },
                "callbacks": {"checkpoint": {"dirpath": f"{folder}/checkpoints"}, "activation_stats": {}},
                "layers": {name: name[3:] for name in layers},
            }
            | (config or {})
        )
    )
    dropped = 0.0 if kind == "none" else p
    activations = _activation_rows(steps, kind, dropped, layers, seed, rates or (dropped,) * len(layers))
    _write_metrics(folder / "metrics.csv", activations, steps, seed, final or {})
    with (folder / "activations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "epoch", "mode", "layer", "stat", "value"), *activations])
    about = {
        "status": "ok",
        "error": None,
        "traceback": None,
        "git_sha": "28458a5f00dfeed0c0ffee28458a5f00dfeed0c0",
        "git_diff": "",
        "versions": {"python": "3.11.9", "torch": "2.15.0", "lightning": "2.6.6", "dropout_lab": "0.1.0"},
        "command": "scripts/compare",
        "seconds": 6.0 + seed,
        "config_hash": f"{kind}{seed}",
    }
    (folder / "status.json").write_text(json.dumps(about | (status or {})))
    return folder


def _activation_rows(
    steps: list[int], kind: str, p: float, layers: tuple[str, ...], seed: int, rates: tuple[float, ...]
) -> list[tuple[int, int, str, str, str, float]]:
    """Numbers (step, epoch, mode, layer, stat, value); the last ratio is 1 + (theory - 1) / (1 + 0.1 (epochs - 1))."""
    q = 1 - p
    gain = {"classic": (q, q), "unscaled": (q, 1.0)}.get(kind, (1.0, 1.0))
    rows: list[tuple[int, int, str, str, str, float]] = []
    for epoch, step in enumerate(steps):
        for depth, layer in enumerate(layers, 1):
            ratio = q ** ((depth + 1) / 2) if kind == "unscaled" else q ** (-(depth - 1) / 2)
            ratio = 1 + (ratio - 1) / (1 + 0.1 * epoch)
            for mode, g, scale in (("train", gain[0], ratio), ("eval", gain[1], 1.0)):
                mean = 0.4 * depth**0.5 * (1 + 0.05 * epoch + 0.01 * seed) * scale
                for name, value in ((f"{layer}_in", mean / g), (layer, mean)):
                    rows.append((step, epoch, mode, name, "mean", value))
                    rows.append((step, epoch, mode, name, "std", 0.8 * value))
                    kept = q if mode == "train" and name == layer else 1
                    rows.append((step, epoch, mode, name, "zeros", 1 - 0.5 * kept))
                    rows.append((step, epoch, mode, name, "count", 4096))
                rows += [(step, epoch, mode, layer, "gain", g), (step, epoch, mode, layer, "gain_se", 0.01)]
            for name in (layer, f"{layer}_in"):
                rows += [(step, epoch, "probe", name, "ratio", ratio), (step, epoch, "probe", name, "shift", ratio - 1)]
        rows += [(step, epoch, "train", layer, "p", rate) for layer, rate in zip(layers, rates, strict=True)]
    return rows


def _write_metrics(path: Path, activations: list[Any], steps: list[int], seed: int, final: dict[str, float]) -> None:
    rng = np.random.default_rng(seed)
    flushes: dict[int, dict[str, float]] = {}
    for step, _, mode, layer, stat, value in activations:
        if stat not in ("count", "gain_se"):
            names = {"gain": f"dropout_gain_{mode}", "p": "dropout_p"}
            names |= {"ratio": "activation_ratio", "shift": "activation_shift"}
            flushes.setdefault(step, {})[f"{names.get(stat, f'activation_{stat}_{mode}')}/{layer}"] = value
    rows: list[dict[str, float]] = []
    for epoch, step in enumerate(steps):
        loss = 2.2 * np.exp(-0.35 * epoch) + 0.05 + 0.01 * rng.normal()
        losses = {"train_eval/loss": loss, "val/loss": loss + 0.02, "gap/loss": 0.02}
        accuracies = {"train_eval/acc": 1 - loss / 3, "val/acc": 0.99 - loss / 3, "gap/acc": -0.01}
        rows.append({"epoch": epoch, "step": step - 4, "train/loss": loss + 0.1})
        rows.append({"epoch": epoch, "step": step} | losses | accuracies)
        rows.append({"epoch": epoch, "step": step} | flushes.get(step, {}))
    rows[-2] |= {key: value for key, value in final.items() if not key.startswith("test/")}
    tests = {"test/loss": 0.1 + 0.01 * seed, "test/acc": 0.97 - 0.001 * seed}
    tests |= {key: value for key, value in final.items() if key.startswith("test/")}
    rows.append({"epoch": len(steps), "step": steps[-1]} | tests)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["epoch", "step", *dict.fromkeys(k for row in rows for k in row if k not in ROW)])
        table.writeheader()
        table.writerows(rows)


PICTURE = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def write_look(folder: Path, **changed: Any) -> None:
    """What `look` leaves in a folder."""
    conditions = ("dropout off", "element-wise")
    seen = {
        "title": "net looking at china.jpg",
        "alt": "activation maps",
        "warning": None,
        "sentences": ["Dropout with p = 0.5 after 03_relu."],
        "means": {"03_relu": {condition: f"mean {condition}" for condition in conditions}},
        "predictions": {condition: [[f"{condition} cat", 0.875], ["dog", 0.125]] for condition in conditions},
    }
    folder.mkdir(parents=True)
    (folder / "look.json").write_text(json.dumps(seen | changed))
    (folder / "look.png").write_bytes(PICTURE)


@pytest.fixture(scope="session", name="write_run")
def _write_run() -> Any:
    return write_run


@pytest.fixture(scope="session", name="write_look")
def _write_look() -> Any:
    return write_look
