"""Batch order: a pure function of seed and step, every record once an epoch; batches read ahead in order."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cohorts.cohort import ahead, in_order, open_cohort
from models import MODELS
from utils.training.loop import batch_positions


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12), count=st.integers(1, 30), epochs=st.integers(1, 3))
def test_every_record_is_seen_once_an_epoch(seed, size, count, epochs):
    steps = -(-epochs * count // size)
    stream = np.concatenate([batch_positions(seed, step, size, count) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_depends_on_seed_and_step_alone_and_is_reshuffled_each_epoch():
    first, second = batch_positions(7, 0, 50, 50), batch_positions(7, 1, 50, 50)
    assert (first == batch_positions(7, 0, 50, 50)).all()
    assert (first != second).any()
    assert (first != batch_positions(8, 0, 50, 50)).any()
    halves = np.concatenate([batch_positions(7, step, 25, 50) for step in (0, 1)])
    assert (halves == first).all()


def test_in_order_cuts_without_loss():
    cut = in_order(np.arange(10, 17), 3)
    assert [batch.tolist() for batch in cut] == [[10, 11, 12], [13, 14, 15], [16]]


def test_reading_ahead_keeps_order_reads_in_another_thread_and_does_not_run_away():
    threads, read = set(), []

    def slow(number):
        threads.add(threading.get_ident())
        read.append(number)
        return number * number

    results = ahead(slow, iter(range(100)))
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert threading.get_ident() not in threads
    results.close()
    assert len(read) < 15


def test_an_error_while_reading_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda number: 1 // number, [1, 0, 1]))


@pytest.mark.parametrize("name, wanted", [("nn", {"label", "phenotype"}), ("cnn", {"label", "phenotype", "volume"})])
def test_only_what_the_model_reads_is_read(name, wanted, cohort):
    opened = open_cohort(cohort)
    (batch,) = MODELS[name].batches(opened, [np.array([1, 3])])
    assert batch.keys() == wanted
    assert batch["label"].tolist() == [opened.rows[1].label, opened.rows[3].label]
