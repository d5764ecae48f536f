"""The workflow that publishes the page takes it from where it is written; what only GitHub can run is not tested."""

from pathlib import Path

import pytest
import yaml

from dropout_lab.report.__main__ import main

REPOSITORY = Path(__file__).parents[1]
FOLDER = "runs/compare"


@pytest.fixture(scope="module")
def jobs():
    return yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())["jobs"]


@pytest.mark.slow
def test_what_is_published_is_what_was_written(jobs, tmp_path, write_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / FOLDER / "0", epochs=2)
    steps = jobs["compare"]["steps"]
    trains, reports, copies = [step["run"] for step in steps if "run" in step]
    assert trains == f"scripts/compare hydra.sweep.dir={FOLDER}"
    command, name, *arguments = reports.split()
    assert (command, name) == ("scripts/lab", "report")
    main(arguments)
    uploaded, page = [step["with"]["path"] for step in steps if "upload-" in step.get("uses", "")]
    for pattern in uploaded.split():
        assert list(tmp_path.glob(pattern)), pattern
    assert copies == f"mkdir {page} && cp {FOLDER}/report.html {page}/index.html"


def test_pages_are_published_only_from_main_where_they_are_switched_on(jobs):
    on = "vars.PUBLISH_REPORT == 'true' && github.ref == 'refs/heads/main'"
    assert jobs["pages"]["if"] == on
    assert [step.get("if") for step in jobs["compare"]["steps"][-2:]] == [on, on]
    assert jobs["pages"]["needs"] == "compare"
    assert jobs["pages"]["permissions"] == {"pages": "write", "id-token": "write"}
