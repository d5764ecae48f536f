import os

import pytest
import yaml  # type: ignore[import-untyped]

from dropout_lab.report import build

RUNS, LAYERS, FLUSHES = 500, 40, 30


@pytest.mark.slow
def test_a_report_of_500_runs_of_40_layers_is_a_page_of_less_than_20_megabytes(tmp_path, write_run):
    layers = tuple(f"{n:02d}_block{n}_dropout" for n in range(LAYERS))
    first = write_run(tmp_path / "first" / "0", layers=layers, epochs=FLUSHES)
    config = yaml.safe_load((first / "config.yaml").read_text())
    for n in range(1, RUNS):  # the same numbers under other names: links cost no disk, and are read all the same
        folder = tmp_path / "sweep" / str(n)
        folder.mkdir(parents=True)
        for name in ("metrics.csv", "activations.csv", "status.json"):
            os.link(first / name, folder / name)
        changed = config | {"seed": n % 5, "optimizer": config["optimizer"] | {"lr": n // 5 / 100}}
        (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    report = build(tmp_path)
    assert report.text.count("inverted lr=") >= 100
    assert report.page.stat().st_size < 20e6  # of which plotly is 5
