"""Laws of the section of claims: its pictures are those beside the page, its numbers stand below them."""

import re
from base64 import b64decode

import matplotlib.image
from claiming_runs import FAILS, HOLDS, PLOT, sweep

from dropout_lab.report import build
from dropout_lab.verdict.__main__ import judge_folder


def test_the_page_shows_the_filters(tmp_path, write_run, weights):
    judge_folder(sweep(tmp_path, write_run, HOLDS, filters=["a", "not run"]))
    page = build(tmp_path).page.read_text()
    (encoded,) = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="first-layer weights of a"></article>', page)
    assert b64decode(encoded) == (tmp_path / "filters.png").read_bytes()


def test_the_page_has_pictures_and_numbers_of_both_and_files_beside_it(tmp_path, write_run):
    report = build(sweep(tmp_path, write_run, HOLDS, FAILS, figure=[PLOT]))
    page = report.page.read_text()
    assert "1 holds, 1 does not hold here." in page
    assert "broad and grey is a law" in page
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)">', page)
    for (encoded, alternative), name in zip(pictures, ("figure", "claims"), strict=True):
        assert b64decode(encoded) == (tmp_path / f"{name}.png").read_bytes()
        assert matplotlib.image.imread(tmp_path / f"{name}.png").shape[1] == 1020  # a column at 300 dots per inch
        assert alternative.startswith({"figure": "accuracy over units: a &amp; b;", "claims": "1 holds, 1"}[name])
        assert alternative.endswith("the same numbers are in the table below the picture")
    assert '<th scope="row">b is less accurate &lt;than&gt; a</th><td>test/acc, b - a</td>' in page
    assert "<td>a &amp; b</td><td>10</td><td>0.935</td>" in page
    assert page.index('id="claims"') < page.index('id="results"')
    assert report.verdict.startswith("HOLDS: b is more accurate than a")
