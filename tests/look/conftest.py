"""Files that a look is asked about: weights, and a run that has hardly begun."""

import pytest
import torch
import torchvision
from omegaconf import OmegaConf, open_dict

from dropout_lab.jobs.plan import plan


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """File of weights of squeezenet1_1, the smallest model there is."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.manual_seed(5)
    # as torchvision's older files are written
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path, _use_new_zipfile_serialization=False)
    return str(path)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a run that has hardly begun."""
    from dropout_lab.jobs.build import build_data, build_network

    folder = tmp_path_factory.mktemp("run")
    config = plan(["dropout=spatial", "dropout.p=0.3", f"hydra.run.dir={folder}"]).base
    with open_dict(config):
        del config["hydra"]
    config.run = {"dir": str(folder), "root": str(folder), "name": "spatial p=0.3", "group": "spatial", "id": "0"}
    torch.manual_seed(1)
    net = build_network(config, build_data(config)).net
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}, folder / "checkpoints/best.ckpt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    return folder
