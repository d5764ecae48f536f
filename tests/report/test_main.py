import shutil
import subprocess
import sys

import pytest
from small_disk import fill, mounted

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


def test_where_the_disk_is_full_the_report_that_was_there_stays_and_one_line_says_why(tmp_path, write_run, capsys):
    with mounted(tmp_path / "disk", "size=9m") as disk:
        write_run(disk / "0", final={"test/acc": 0.875})
        main([str(disk)])
        before = {path.name: path.read_bytes() for path in disk.iterdir() if path.is_file()}
        write_run(disk / "1", arm="other", final={"test/acc": 0.5})
        fill(disk).unlink()  # the second report is not to fit, but all the rest
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main([str(disk)])
        assert capsys.readouterr() == ("", f"error: {disk / 'report.html'}: No space left on device\n")
        (disk / "filler").unlink()
        after = {path.name: path.read_bytes() for path in disk.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert after["report.html"] == before["report.html"]


@pytest.mark.slow
def test_the_report_needs_none_of_the_libraries_that_take_seconds(tmp_path, write_run):
    for seed in range(3):
        for kind in ("inverted", "none"):
            write_run(tmp_path / f"{kind}{seed}", seed=seed, kind=kind)
    script = "import sys; from dropout_lab.report import build; build(sys.argv[1])\n"
    script += "print(*{'torch', 'scipy.stats', 'matplotlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script, tmp_path], text=True) == "\n"
    assert (tmp_path / "report.html").exists()
