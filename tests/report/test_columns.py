"""Laws of the columns: a number with its interval, and of how many seeds where not of all."""

from dropout_lab.report import build


def test_one_seed_shows_no_interval(tmp_path, write_run):
    write_run(tmp_path / "0", final={"test/acc": 0.9})
    row = next(line for line in build(tmp_path).text.splitlines() if line.startswith("inverted"))
    assert "90.00" in row
    assert "±" not in row


def test_a_number_that_some_seeds_lack_says_how_many_have_it(tmp_path, write_run):
    for seed, loss in enumerate((0.1, 0.3, float("nan"))):
        write_run(tmp_path / str(seed), seed=seed, final={"test/loss": loss})
    text = build(tmp_path).text
    assert "(n=2)" in text
    assert "2 (counted): metrics.csv has no finite test/loss" in text
