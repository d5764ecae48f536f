"""Laws of the command `verdict`: it prints what was claimed and found, or one line on why nothing was."""

import pytest
from fake_runs import write_run
from judged_runs import EQUAL, LESS, sweep

from dropout_lab.verdict.__main__ import main


def test_the_command_prints_what_was_claimed_and_what_was_found(tmp_path, capsys):
    main([str(sweep(tmp_path, LESS, effect=-0.02))])
    said = capsys.readouterr().out
    assert said.startswith("HOLDS: b is less accurate\n    test/acc, b - a: -0.02001 [")
    assert "claimed < 0; 8 seeds, p = 0.0039" in said
    assert "Holm over the experiment's claims, alpha 0.05" in said


def test_what_cannot_be_judged_is_one_line(tmp_path, capsys):
    def error(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 2
        return capsys.readouterr().err

    write_run(tmp_path / "plain" / "0", epochs=1)
    assert "these runs claim nothing" in error(str(tmp_path / "plain"))
    assert "no such folder" in error(str(tmp_path / "nowhere"))
    sweep(tmp_path / "both" / "1", LESS, seeds=1)
    sweep(tmp_path / "both" / "2", EQUAL, seeds=1)
    assert "different claims" in error(str(tmp_path / "both"))
    sweep(tmp_path / "mixed" / "1", LESS, seeds=1)
    sweep(tmp_path / "mixed" / "2", LESS, seeds=1, p=0.2)
    assert "arm a: its runs differ in more than the seed" in error(str(tmp_path / "mixed"))
