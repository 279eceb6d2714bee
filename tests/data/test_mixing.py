"""The order of samples: a pure function of (seed, step), with the modalities in proportion in every batch."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.data.mixing import MIXES, BatchOrder, rank_share, shuffled
from vidllava.data.mixture import Mixture
from vidllava.data.source import MODALITIES, Modality, Sample, Source
from vidllava.errors import DatasetError, UsageError


class Listed(Source):
    """A source that is only a list of modalities."""

    def __init__(self, modalities: list[Modality], name: str = "listed") -> None:
        self.name, self.modalities = name, modalities

    def __len__(self) -> int:
        return len(self.modalities)

    def modality(self, index: int) -> Modality:
        return self.modalities[index]

    def sample(self, index: int) -> Sample:
        raise AssertionError("the order must not need a sample")


def measured(modalities: list[Modality]) -> Mixture:
    return Mixture((Listed(modalities),), lengths=np.arange(len(modalities), dtype=np.int32) * 7919 % 1000)


def mixture(**counts: int) -> Mixture:
    return Mixture((Listed([name for name in MODALITIES for _ in range(counts.get(name, 0))]),))


def of(order: BatchOrder, step: int) -> Counter[str]:
    return Counter(MODALITIES[code] for code in order.mixture.modalities[order.batch(step)])


counts = st.fixed_dictionaries({name: st.integers(0, 60) for name in MODALITIES}).filter(
    lambda found: sum(found.values()) > 0
)


@settings(deadline=None)
@given(counts=counts, batch_size=st.integers(1, 33), seed=st.integers(0, 2**40), step=st.integers(0, 50))
def test_in_batch_holds_every_modality_in_proportion(
    counts: dict[str, int], batch_size: int, seed: int, step: int
):
    found = of(BatchOrder(mixture(**counts), mix="in-batch", batch_size=batch_size, seed=seed), step)
    total = sum(counts.values())
    for name, count in counts.items():
        assert abs(found[name] - batch_size * count / total) <= 2.5


def test_in_batch_with_a_whole_proportion_is_exact():
    order = BatchOrder(mixture(picture=200, video=600), mix="in-batch", batch_size=8, seed=1)
    assert all(of(order, step) == {"picture": 2, "video": 6} for step in range(100))


@settings(deadline=None, max_examples=40)
@given(counts=counts, batch_size=st.integers(1, 20), epochs=st.integers(1, 3))
def test_every_epoch_shows_every_sample_once(counts: dict[str, int], batch_size: int, epochs: int):
    order = BatchOrder(mixture(**counts), mix="in-batch", batch_size=batch_size, seed=3)
    size = sum(counts.values())
    draws = np.concatenate([order.batch(step) for step in range(order.steps(epochs))])
    for epoch in range(epochs):
        assert sorted(draws[epoch * size : (epoch + 1) * size]) == list(range(size))


@pytest.mark.parametrize("mix", MIXES)
def test_the_order_is_a_function_of_seed_and_step(mix):
    data = mixture(text=9, picture=31, pictures=17, video=43)
    first = BatchOrder(data, mix=mix, batch_size=8, seed=5)
    again = BatchOrder(data, mix=mix, batch_size=8, seed=5)
    ahead = again.batch(40)  # asking out of order changes nothing
    assert np.array_equal(first.batch(3), again.batch(3))
    assert np.array_equal([first.batch(step) for step in range(41)][40], ahead)
    other = BatchOrder(data, mix=mix, batch_size=8, seed=6)
    assert not np.array_equal(first.batch(3), other.batch(3))


def test_epochs_differ():
    order = BatchOrder(mixture(picture=50), mix="in-batch", batch_size=50, seed=1)
    assert not np.array_equal(order.batch(0), order.batch(1))


def test_the_order_does_not_hang_on_the_number_of_processes():
    order = BatchOrder(mixture(picture=40, video=60), mix="in-batch", batch_size=12, seed=2)
    shares = [rank_share(order.batch(7), rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), order.batch(7))
    assert {len(share) for share in shares} == {4}


def test_separate_batches_hold_one_modality_and_alternate_in_proportion():
    order = BatchOrder(mixture(picture=80, video=240), mix="separate", batch_size=8, seed=2)
    kinds = [of(order, step) for step in range(order.steps(1))]
    assert all(len(kind) == 1 for kind in kinds)
    for start in range(0, 40, 4):
        assert sum("video" in kind for kind in kinds[start : start + 4]) == 3


@pytest.mark.parametrize(
    ("mix", "kinds"), [("image-only", {"picture", "pictures"}), ("video-only", {"video"})]
)
def test_one_sided_mixes_leave_the_others_out(mix, kinds):
    order = BatchOrder(mixture(text=10, picture=20, pictures=20, video=20), mix=mix, batch_size=8, seed=2)
    assert {name for step in range(10) for name in of(order, step)} == kinds


def test_sequential_shows_single_pictures_first_and_then_everything():
    order = BatchOrder(mixture(picture=40, pictures=40, video=40), mix="sequential", batch_size=8, seed=2)
    assert all(of(order, step) == {"picture": 8} for step in range(5))
    assert Counter({"picture": 40, "pictures": 40, "video": 40}) == sum(
        (of(order, step) for step in range(5, 20)), Counter()
    )


def test_weights_draw_a_source_more_or_less_often():
    sources = (Listed(["picture"] * 40), Listed(["picture"] * 40), Listed(["picture"] * 40))
    order = BatchOrder(Mixture(sources, (2.0, 1.0, 0.25)), mix="in-batch", batch_size=10, seed=1)
    first = Counter(int(index) // 40 for index in order.epoch(0))
    assert first == {0: 80, 1: 40, 2: 10}
    quarter = [int(i) for epoch in range(4) for i in order.epoch(epoch) if i >= 80]
    assert sorted(quarter) == list(range(80, 120)), "four quarters show each sample once"


@pytest.mark.parametrize("mix", MIXES)
def test_every_epoch_is_as_long_as_the_first_also_where_parts_of_a_source_are_drawn(mix):
    """A mix that leaves modalities out must not find fewer of its own in a later epoch: it would
    wait for ever."""
    rng = np.random.default_rng(0)
    mixed = Listed([MODALITIES[int(code)] for code in rng.integers(0, 4, 61)])
    order = BatchOrder(Mixture((mixed, mixed), (0.3, 1.7)), mix=mix, batch_size=4, seed=1)
    assert {len(order.epoch(number)) for number in range(12)} == {order.epoch_size}
    shown = {int(index) for number in range(12) for index in order.epoch(number)}
    wanted = {MODALITIES.index(name) for name in MODALITIES}
    if mix in ("image-only", "video-only"):
        wanted = {1, 2} if mix == "image-only" else {3}
    codes = order.mixture.modalities
    assert shown == {at for at in range(122) if int(codes[at]) in wanted}, "in time every sample is drawn"


@settings(deadline=None, max_examples=60)
@given(
    counts=counts.filter(lambda found: found["picture"] and found["video"]),
    mix=st.sampled_from(MIXES),
    shape=st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**40),
)
def test_however_a_batch_is_cut_the_row_of_samples_is_the_same(counts, mix, shape, seed):
    """World size x micro-batches x their size: any split of one global batch, with lengths known."""
    world_size, micro, size = shape
    data = measured([name for name in MODALITIES for _ in range(counts[name])])
    whole = BatchOrder(data, mix=mix, batch_size=world_size * micro * size, seed=seed)
    own = [BatchOrder(data, mix=mix, batch_size=whole.batch_size, seed=seed) for _ in range(world_size)]
    for step in (7, 0, 3):
        shares = [rank_share(order.batch(step), rank, world_size) for rank, order in enumerate(own)]
        assert np.array_equal(np.concatenate(shares), whole.batch(step))


def test_separate_batches_do_not_drift_from_short_to_long():
    modalities: list[Modality] = ["picture", "video"] * 400
    order = BatchOrder(measured(modalities), mix="separate", batch_size=8, seed=4)
    means = [float(np.mean(order.batch(step) * 7919 % 1000)) for step in range(0, 96, 2)]
    rises = sum(after > before for before, after in itertools.pairwise(means))
    assert 10 < rises < 37, "a drift would rise nearly always"


def test_grouping_by_length_matches_lengths_and_loses_nothing():
    modalities: list[Modality] = ["picture", "video"] * 400
    grouped = BatchOrder(measured(modalities), mix="in-batch", batch_size=8, seed=4)
    plain = BatchOrder(Mixture((Listed(modalities),)), mix="in-batch", batch_size=8, seed=4)

    def spread(order: BatchOrder) -> float:
        return float(np.mean([np.ptp(order.batch(s) * 7919 % 1000) for s in range(100)]))

    assert spread(grouped) < 0.3 * spread(plain)
    assert sorted(grouped.epoch(0)) == list(range(800))
    assert all(of(grouped, step) == {"picture": 4, "video": 4} for step in range(100))


@pytest.mark.parametrize("mix", ["in-batch", "sequential"])
def test_lengths_are_matched_within_batches_that_straddle_epochs_too(mix):
    """An epoch of 803 draws ends within a batch of 8: the next one's windows begin where a batch does."""
    modalities: list[Modality] = ["picture"] * 803
    order = BatchOrder(measured(modalities), mix=mix, batch_size=8, seed=4)
    spreads = [float(np.ptp(order.batch(step) * 7919 % 1000)) for step in range(400)]
    for begin in range(0, 400, 100):  # the epochs before and after the first border alike
        assert np.mean(spreads[begin : begin + 100]) < 150


@pytest.mark.parametrize("mix", ["in-batch", "separate"])
def test_batches_of_like_length_come_in_another_order_in_every_window(mix):
    """Else the shortest batch of each window would come at the same place, in every window and epoch."""
    order = BatchOrder(measured(["picture"] * 256), mix=mix, batch_size=8, seed=4)

    def places(window: int) -> tuple[int, ...]:
        means = [np.mean(order.batch(window * 16 + step) * 7919 % 1000) for step in range(16)]
        return tuple(np.argsort(means).tolist())

    assert len({places(window) for window in range(6)}) == 6, "three epochs of two windows"


def test_shuffled_stays_what_it_is():
    assert shuffled(8, 1, 2).tolist() == shuffled(8, 1, 2).tolist()
    assert sorted(shuffled(1000, 7)) == list(range(1000))
    # Pinned: a resumed run must find the order that it left, whatever numpy is installed.
    assert shuffled(8, 42, 0).tolist() == [4, 3, 5, 0, 7, 6, 1, 2]


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ((1.0, 1.0), "2 weights for 1 data sets"),
        ((0.0,), "not a weight"),
        ((-1.0,), "not"),
        ((1000.5,), "not"),
    ],
)
def test_wrong_weights_are_refused(weights, what):
    with pytest.raises(UsageError, match=what):
        Mixture((Listed(["text"]),), weights)


def test_the_largest_weight_is_allowed():
    assert (
        BatchOrder(Mixture((Listed(["text"]),), (1000.0,)), mix="in-batch", batch_size=1, seed=0).epoch_size
        == 1000
    )


def test_a_mix_without_its_modality_is_refused():
    with pytest.raises(UsageError, match=r"video-only.*the data has none"):
        BatchOrder(mixture(picture=3), mix="video-only", batch_size=2, seed=0)


def test_an_empty_source_is_refused():
    with pytest.raises(DatasetError, match="holds no samples"):
        Mixture((Listed([]),))


def test_the_fingerprint_tells_other_data():
    marks = [
        Mixture((Listed(["picture", "video"]),)).fingerprint(),
        Mixture((Listed(["video", "picture"]),)).fingerprint(),
        Mixture((Listed(["picture", "video"]),), (2.0,)).fingerprint(),
        Mixture((Listed(["picture", "video"], name="other"),)).fingerprint(),
    ]
    assert all(marks.count(mark) == 1 for mark in marks)


def test_replacements_are_the_next_of_the_same_modality():
    data = Mixture((Listed(["video", "picture", "video", "picture", "video"]),))
    assert list(data.replacements(2, 10)) == [4, 0]
    assert list(data.replacements(1, 10)) == [3]
    assert list(data.replacements(0, 1)) == [2]
    assert list(data.replacements(0, 2)) == [2, 4]
