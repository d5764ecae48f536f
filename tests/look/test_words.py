"""Laws of a look in words: table and record say the same, in numbers taken from the passes."""

import json
from dataclasses import replace

import pytest
from looks import FIRST, VECTOR, outputs, subject

from dropout_lab.look.views import CONDITIONS, OFF, look_at
from dropout_lab.look.words import RANDOM, alternative, likeliest, mean, notes, record, table


@pytest.fixture(scope="module")
def look():
    return look_at(subject(), 0.5)


def test_means_stand_beside_their_ratio_to_that_without_dropout(look):
    off, element, *_ = (output.mean().item() for output in outputs(look, FIRST))
    assert mean(look, FIRST, OFF) == f"{off:.3g}"
    assert mean(look, FIRST, "element-wise") == f"{element:.3g} = {element / off:.2f} x off"


def test_means_of_signed_numbers_have_no_ratio():
    signed = look_at(subject(), 0.5, ["00_first"], where="layers")
    assert float(outputs(signed, "00_first")[0].min()) < 0
    assert "x off" not in mean(signed, "00_first", "unscaled")


def test_the_likeliest_classes_come_first(look):
    probabilities = look.views[OFF].probabilities
    shares = [share for _, share in likeliest(look, OFF, 7)]
    assert shares == sorted(probabilities.tolist(), reverse=True)
    assert likeliest(look, OFF, 1)[0][0] == f"c{int(probabilities.argmax())}"


def test_the_record_is_what_the_table_says_and_json_keeps_it(look):
    said, of = table(look), record(look)
    assert json.loads(json.dumps(of))["means"] == of["means"]
    assert set(of["means"][FIRST]) == set(CONDITIONS)
    for text in (of["title"], of["warning"], *of["sentences"], *of["means"][FIRST].values()):
        assert text in said
    assert all(f"{name} {share:.1%}" in said for guesses in of["predictions"].values() for name, share in guesses)


def test_only_random_weights_are_warned_of(look):
    trained = replace(look, subject=replace(look.subject, trained=True))
    assert (record(look)["weights"], record(look)["warning"]) == ("random", RANDOM)
    assert (record(trained)["weights"], record(trained)["warning"]) == ("trained", None)
    assert RANDOM not in table(trained)


def test_the_picture_in_a_sentence_names_the_class_under_every_condition(look):
    said = alternative(look)
    for condition in CONDITIONS:
        assert f"{condition}: {likeliest(look, condition, 1)[0][0]}" in said


def test_many_layers_are_counted_and_few_are_named(look):
    many = [f"{number:02}_a_layer" for number in range(20)]
    assert "after 20 layers, 00_a_layer to 19_a_layer;" in notes(replace(look, dropped=many))[0]
    assert f"after {VECTOR};" in notes(replace(look, dropped=[VECTOR]))[0]
