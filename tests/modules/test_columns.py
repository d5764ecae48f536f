"""Laws of columns: a module's own say what can be monitored, and are what its scores are called."""

import torch
from classifying import made

from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column


def test_what_is_scored_has_a_column_and_every_column_is_scored():
    classifier = made()
    classes = torch.zeros(4, dtype=torch.int64)
    scores = classifier.scores(classifier.predict(torch.zeros(4, 1, 3, 3)), (None, classes))
    assert {column.key for column in Classifier.columns} == {*classifier.summarize(scores)}
    assert all(len(rows) == 4 for rows in scores.values())


def test_callbacks_can_monitor_the_columns_in_validation():
    monitored = Classifier.monitored()
    assert monitored[0] == "train/loss"
    assert {key.partition("/")[2] for key in monitored[1:]} == {column.key for column in Classifier.columns}
    assert {key.partition("/")[0] for key in monitored[1:]} == {"val", "train_eval", "gap"}


def test_what_is_logged_over_training_is_what_can_be_monitored():
    curves = [metric for column in Classifier.columns for metric in column.curves]
    assert sorted(curves) == sorted(Classifier.monitored())


def test_a_callbacks_column_is_of_the_part_that_its_key_names():
    test, val, neither = (Column(key, "AUROC") for key in ("auroc/test", "auroc/val", "ood/auroc"))
    assert [column.tested for column in (test, val, neither)] == [True, False, True]
    assert [[*column.curves] for column in (test, val, neither)] == [[], ["auroc/val"], ["ood/auroc"]]
