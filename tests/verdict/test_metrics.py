"""Numbers of two runs, from their curves and their checkpoints."""

import pytest
import torch
from fake_runs import write_run
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.dropout import rates_of
from dropout_lab.jobs.build import build_data, build_module, build_network, build_optimizer
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.plan import plan
from dropout_lab.runs import read
from dropout_lab.runs.folder import RunFolder
from dropout_lab.runs.read import Run
from dropout_lab.verdict.metrics import measure_pair


def test_curves_are_compared_at_every_step(tmp_path):
    runs = [read.open(write_run(tmp_path / arm, arm=arm, epochs=1)) for arm in "ab"]
    runs[1].metrics["val/loss"] = runs[0].metrics["val/loss"] + 0.25
    assert measure_pair(runs[0], runs[1], "val/loss/difference") == pytest.approx(0.25)
    with pytest.raises(UserError, match="weights/norm_ratio"):
        measure_pair(runs[0], runs[1], "val/loss")


@pytest.mark.slow
def test_weights_of_matched_classic_training_are_those_of_inverted_divided_by_q(tmp_path):
    def saved(name, *words):
        (job,) = plan(["model=mlp", "model.widths=[8]", "dropout.p=0.2", f"hydra.run.dir={tmp_path}", *words]).jobs
        cfg = job.config
        cfg.run = {key: str(tmp_path / name) for key in cfg.run} | {"overrides": [], "choices": {}}
        torch.manual_seed(0)
        data = build_data(cfg)
        net = build_network(cfg, data).net
        build_optimizer(cfg, build_module(cfg, net), data)
        own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        RunFolder(tmp_path / name, "").write_config(resolved(own))
        (tmp_path / name / "checkpoints").mkdir()
        state = {f"net.{key}": value for key, value in net.state_dict().items()}
        for checkpoint in ("last", "step=1"):
            torch.save(
                {"state_dict": state, "dropout_rates": rates_of(net)},
                tmp_path / name / "checkpoints" / f"{checkpoint}.ckpt",
            )
        return Run(tmp_path / name, name, "ok")

    inverted = saved("inverted")
    matched = saved("matched", "dropout=classic", "optimizer.match=inverted")
    same = saved("same", "dropout=classic")
    assert measure_pair(matched, inverted, "weights/difference") < 1e-6
    assert measure_pair(matched, inverted, "weights/norm_ratio") == pytest.approx(1 / 0.8)
    assert measure_pair(same, inverted, "weights/norm_ratio") == pytest.approx(1)
    assert measure_pair(same, inverted, "weights/difference") > 0.1
    # a checkpoint along the way counts as the last one does
    path = tmp_path / "inverted" / "checkpoints" / "step=1.ckpt"
    early = torch.load(path, weights_only=True)
    early["state_dict"]["net.classifier.bias"] += 1
    torch.save(early, path)
    inverted = Run(inverted.folder, inverted.name, inverted.status)  # of one run a number is measured once
    assert measure_pair(matched, inverted, "weights/difference") > 0.5
