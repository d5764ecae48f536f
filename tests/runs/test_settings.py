"""The configuration at a glance."""

from dropout_lab.runs.settings import summary

CONFIG = {
    "seed": 3,
    "arm": None,
    "model": {"_target_": "dropout_lab.models.CNN", "widths": [32, 64], "batch_norm": False},
    "callbacks": {"last": {"_target_": "somewhere.Saver", "every": {"minutes": 10}}, "best": {"_target_": "a.Best"}},
    "run": {"dir": "runs/one"},
}


def test_each_group_is_a_line_with_what_it_builds_and_its_settings():
    assert summary(CONFIG).splitlines() == [
        "                seed=3",
        "model           CNN widths=[32, 64] batch_norm=False",
        "callbacks.last  Saver every.minutes=10",
        "callbacks.best  Best",
    ]
