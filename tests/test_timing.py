"""Ratios of CPU time, where one candidate does twice the work of another."""

import time

import pytest
import torch

from dropout_lab.timing import ratios


def work(times):
    for _ in range(times * 20_000):
        pass


def test_the_ratio_is_that_of_the_work():
    found = ratios({"one": lambda: work(1), "again": lambda: work(1), "two": lambda: work(2)}, rounds=21)
    assert [ratio for _, ratio in found.values()] == pytest.approx([1, 1, 2], rel=0.15)
    assert found["two"][0] > found["one"][0] > 0


def test_waiting_is_no_work():
    found = ratios({"work": lambda: work(1), "wait": lambda: time.sleep(0.002)}, rounds=5)
    assert found["wait"][1] < 0.5


def test_candidates_take_turns_at_coming_first():
    called = []
    ratios({name: lambda name=name: called.append(name) for name in "ab"}, rounds=4)
    assert called[4:] == [*"ba", *"ab", *"ba", *"ab"]  # behind two to warm up each


def test_the_number_of_threads_is_as_it_was(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    ratios({"one": lambda: None}, rounds=1)
    assert set_to == [1, 3]
