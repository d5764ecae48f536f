"""Laws of the notes: they explain with the table's own numbers, and only what it shows."""

from dropout_lab.report import build


def test_the_sentences_explain_drift_and_matching_with_the_tables_own_numbers(sweep):
    text = " ".join((sweep / "table.txt").read_text().split())
    assert "q^(-(l-1)/2)" in text
    assert "q^((l+1)/2)" in text
    assert "here l = 3, q = 0.5: 2.00 and 0.25" in text
    assert "init/q" in text
    assert "lr/q^2" in text
    assert "weight decay*q^2" in text


def test_theory_is_not_quoted_for_a_table_of_several_p(tmp_path, write_run):
    write_run(tmp_path / "0", p=0.2)
    write_run(tmp_path / "1", p=0.5)
    assert "here l" not in build(tmp_path).text
