"""Laws of the explanation without training: the numbers, and what it answers to bad input."""

import functools
import re
import subprocess
import sys

import pytest

from dropout_lab import explain as module
from dropout_lab.explain import main

explain = functools.cache(module.explain)


def means(text):
    """The three means of the vector of ones: as it is, after dropping, after rescaling."""
    return [float(line.split()[-1]) for line in text.split("Gain")[0].splitlines() if line.startswith("  ")][:3]


def gains(text):
    """Strategy -> (train, half its 95 % interval, eval)."""
    rows = re.findall(r"^  (\w+) +(\S+) ± (\S+) +(\S+)$", text, re.MULTILINE)
    return {name: tuple(map(float, numbers)) for name, *numbers in rows}


def test_ones_fall_to_a_quarter_and_come_back_for_three_quarters():
    text = explain(0.75)
    assert means(text) == [1.00, 0.25, 1.00]
    assert "survivors times 1/(1-p) = 4 " in text
    assert re.findall(r"\d\.\d\d$", text, re.MULTILINE)[:3] == ["1.00", "0.25", "1.00"]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.75])
def test_gains_are_those_of_theory(p):
    q = 1 - p
    found = gains(explain(p))
    expected = {"inverted": (1, 1), "classic": (q, q), "spatial": (1, 1), "unscaled": (q, 1)}
    assert list(found) == list(expected)
    for name, (train, exact) in expected.items():
        gain, margin, in_eval = found[name]
        draws = 1000 * 64 * (1 if name == "spatial" else 64)  # a map is one draw
        of_theory = 1.96 * train * (p / q / draws) ** 0.5
        assert margin == pytest.approx(of_theory, rel=0.5)  # one digit is shown
        assert abs(gain - train) <= 2 * of_theory + 1e-4  # of the gain, four
        assert in_eval == pytest.approx(exact, rel=1e-6)


def test_spatial_is_noisier():
    found = gains(explain(0.75))
    assert found["spatial"][1] == pytest.approx(8 * found["inverted"][1], rel=0.5)  # a map of 64 is one draw
    assert "± is its 95 % interval" in explain(0.75)


def test_another_seed_is_another_sample_of_the_same_law():
    first, second = gains(explain(0.75)), gains(explain(0.75, seed=1))
    assert first == gains(module.explain(0.75))
    assert [train for train, *_ in first.values()] != [train for train, *_ in second.values()]
    assert first["inverted"][2] == second["inverted"][2]


def test_small_numbers_are_not_shown_as_zero():
    text = explain(0.9993)
    assert means(text)[1] == pytest.approx(0.0007, rel=0.1)
    assert gains(text)["classic"][2] == pytest.approx(0.0007, rel=1e-4)
    assert gains(text)["classic"][0] == pytest.approx(0.0007, rel=0.1)


def test_the_command_prints_the_explanation(capsys):
    main(["p=0.75"])
    assert capsys.readouterr() == (explain(0.75) + "\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["p=1"], ["p=nan"], ["p=-0.1"], ["p=inf"], ["p=abc"], ["p="], ["0.75"], ["q=0.25"], [], ["p=0.5", "p=0.5"]],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert all(word in err for word in arguments)


def test_bad_input_is_answered_without_importing_torch():
    """And so within a blink."""
    script = "import sys; from dropout_lab.explain import main\n"
    script += "try: main(['p=1'])\nfinally: print(*{'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "\n")
