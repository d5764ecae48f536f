import subprocess
import sys

import pytest

from dropout_lab.report.__main__ import main


def test_the_command_prints_the_table_and_the_path_of_the_page(tmp_path, write_run, capsys):
    write_run(tmp_path / "0", final={"test/acc": 0.875})
    main([str(tmp_path)])
    out, err = capsys.readouterr()
    assert "87.50" in out
    assert out.splitlines()[-1] == f"Report: {tmp_path / 'report.html'}"
    assert not err
    assert {"report.html", "table.md", "table.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_nothing_to_report_on_is_one_line_and_exit_code_2(tmp_path, capsys):
    for folder, says in ((tmp_path / "absent", "no such folder"), (tmp_path, "no runs in")):
        with pytest.raises(SystemExit, match="2"):
            main([str(folder)])
        out, err = capsys.readouterr()
        assert not out
        assert says in err
        assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torch", "scipy.stats", "matplotlib"])
def test_the_report_needs_none_of_the_libraries_that_take_seconds(library):
    script = f"import dropout_lab.report, sys; assert {library!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
