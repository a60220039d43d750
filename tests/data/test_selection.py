"""Which images are used: shares of the whole, the same for everybody, found again by a card."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import smoothinfer as si
from smoothinfer.data import (
    choose_images,
    choose_rows,
    held_out_rows,
    hold_out,
    images_of_training,
    rows_of_training,
)
from tests.data.conftest import both_splits, flat, write_files


def test_a_limit_of_sorted_data_keeps_every_class(tmp_path):
    files = both_splits(lambda c, i: flat((i, 0, 0)), ("cat", "dog", "owl"), 20)
    data = si.load_data(write_files(tmp_path / "pets", files), "test", limit=20)
    assert sorted(data.labels.bincount().tolist()) == [6, 7, 7]
    assert data.labels.tolist() == sorted(data.labels.tolist())  # the order of the data set


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 60))
def test_shares_are_those_of_the_whole_by_largest_remainder(labels, limit):
    labels = torch.tensor(labels)
    rows = choose_rows(labels, limit)
    assert len(rows) == min(limit, len(labels))
    assert torch.equal(rows, rows.unique())
    sizes = labels.bincount().double()
    quota = sizes * len(rows) / len(labels)
    kept = labels[rows].bincount(minlength=len(sizes)).double()
    more = kept - quota.floor()
    assert set(more.tolist()) <= {0.0, 1.0}
    rest = (quota - quota.floor()).round(decimals=9)
    if (more == 1).any() and (more == 0).any():
        assert rest[more == 1].min() >= rest[more == 0].max()


def test_the_choice_is_the_same_for_everybody():
    labels = torch.arange(40) % 3
    assert choose_rows(labels, 6).tolist() == [4, 6, 9, 11, 20, 37]


def test_a_larger_limit_keeps_the_images_of_a_smaller_one_where_classes_are_equal():
    labels = torch.arange(120) // 12
    before: set[int] = set()
    for limit in (1, 7, 30, 99, 120):
        rows = set(choose_rows(labels, limit).tolist())
        assert before <= rows
        before = rows


def test_the_first_images_are_taken_where_asked_for():
    digits = si.load_data("digits")
    first = si.load_data("digits", limit=50, first=True)
    assert torch.equal(first.pixels, digits.pixels[:50])
    assert not torch.equal(si.load_data("digits", limit=50).pixels, first.pixels)
    assert si.load_data("digits", limit=9999).hash == digits.hash


def test_hold_out_splits_once_and_for_all():
    data = si.load_data("digits", "train")
    rest, held = hold_out(data, 100, seed=0)
    assert (len(rest), len(held)) == (1337, 100)
    assert torch.equal(hold_out(data, 100, seed=0)[1].pixels, held.pixels)
    assert not torch.equal(hold_out(data, 100, seed=1)[1].labels, held.labels)
    both = torch.cat([rest.pixels, held.pixels]).flatten(1).float().sum()
    assert both == data.pixels.flatten(1).float().sum()


def test_held_out_rows_are_those_of_every_run_before():
    training, validation = held_out_rows(10, 3)
    assert validation.tolist() == [3, 4, 6]
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(10))


@pytest.mark.parametrize("first", [False, True])
def test_a_card_finds_its_images_again(first):
    data = si.load_data("digits", "train")
    used = choose_images(data, 300, first)
    card = {"images": 250, "held_out": 50, "hash": used.hash}
    rows = rows_of_training(data, card)
    assert torch.equal(rows, choose_rows(data.labels, 300, first))
    assert images_of_training(data, card).hash == used.hash


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"images": 250, "held_out": 50, "hash": "0"},
        {"images": "many", "held_out": 50},
        {"images": 10**9, "held_out": 50},
        {"images": -1, "held_out": 1},
    ],
)
def test_a_card_of_other_images_finds_none(card):
    assert images_of_training(si.load_data("digits", "train"), card) is None
