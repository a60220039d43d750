"""Verdicts are those of exact arithmetic, however close the votes are."""

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import smoothinfer as si
from smoothinfer.engine.sums import FloatSums, WholeSums
from smoothinfer.engine.tally import Tally, vote
from smoothinfer.engine.voting import rule_of

CPU = torch.device("cpu")
EXACT = ["prediction", "weighted", "top_two", "ranks:1,0.3", "ranks:0.7,0.1,0.1", "ranks:1e-9,1e9"]


def weights_of(rule, classes):
    """The weights as exact numbers, from their decimals."""
    named = {"prediction": "1", "top_two": "1,0.5"}
    if rule == "weighted":
        return [Fraction(1, 2**rank) for rank in range(classes)]
    text = named.get(rule) or rule.removeprefix("ranks:")
    weights = [Fraction(weight) for weight in text.split(",")]
    return [*weights, *[Fraction(0)] * classes][:classes]


def verdict(rule, orders):
    """The lowest class with the largest exact sum; ``orders[s][r]`` is the class of rank r."""
    classes = len(orders[0])
    sums = [Fraction(0)] * classes
    for order in orders:
        for weight, k in zip(weights_of(rule, classes), order, strict=True):
            sums[k] += weight
    return sums.index(max(sums))


def logits_of(orders):
    """Logits (S, 1, K) that put the classes in these orders."""
    logits = torch.empty(len(orders), len(orders[0]))
    ranks = torch.arange(len(orders[0]))
    return logits.scatter(1, torch.tensor(orders), -ranks.float().expand_as(logits))[:, None]


def counted(rule, logits):
    chosen = rule_of(rule)
    tally = Tally(logits.shape[1], [chosen], CPU)
    tally.add(torch.arange(logits.shape[1]), logits)
    return tally.prediction(chosen)


def orders_with(ranks, classes, at, generator):
    """Orders in which the classes ``at`` have the given ranks in each pass, the others any."""
    orders = []
    for own in ranks:
        others = [k for k in torch.randperm(classes, generator=generator).tolist() if k not in at]
        place = dict(zip(own, at, strict=True))
        orders.append([place[r] if r in place else others.pop() for r in range(classes)])
    return orders


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.parametrize(("classes", "passes"), [(2, 9), (3, 6), (10, 4), (33, 2), (100, 2)])
def test_verdicts_are_those_of_fractions(rule, classes, passes):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(passes, 60, classes, generator=generator)
    orders = logits.argsort(dim=2, descending=True, stable=True).transpose(0, 1).tolist()
    assert counted(rule, logits).labels.tolist() == [verdict(rule, each) for each in orders]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([4, 31, 32, 33, 64, 65, 150, 1000]))
def test_close_votes_of_any_number_of_classes_are_told_apart(data, classes):
    """Two classes share the first ranks, and differ in the last ones."""
    passes = data.draw(st.integers(2, 4))
    near, last = st.integers(0, 2), st.integers(max(0, classes - 3), classes - 1)
    rank = st.one_of(near, last, st.integers(0, classes - 1))
    pairs = st.tuples(rank, rank).filter(lambda pair: pair[0] != pair[1])
    ranks = data.draw(st.lists(pairs, min_size=passes, max_size=passes))
    at = data.draw(st.sampled_from([(0, 1), (1, 0), (0, classes - 1), (classes - 1, 2)]))
    orders = orders_with(ranks, classes, at, torch.Generator().manual_seed(0))
    assert counted("weighted", logits_of(orders)).labels.item() == verdict("weighted", orders)


def test_a_difference_of_two_to_the_minus_999_decides():
    generator = torch.Generator().manual_seed(0)
    ranks = [(0, 1), (1, 0), (998, 999)]  # 3/2 + 2^-998 against 3/2 + 2^-999
    for at in ((3, 7), (7, 3)):
        logits = logits_of(orders_with(ranks, 1000, at, generator))
        answer = counted("weighted", logits)
        assert answer.labels.item() == at[0]
        rounded = FloatSums(1, 1000, 1.0, CPU)
        rounded.add(torch.arange(1), rule_of("weighted").votes(logits[:, 0].double())[:, None])
        assert rounded.leaders(torch.arange(1)).item() == 3  # float64 sees a tie


def test_decimal_weights_tie_where_decimals_do():
    """Three first ranks at 1 are ten second ranks at 0.3; a rounded 0.3 favours one of them."""
    for one, other in ((0, 1), (1, 0)):
        firsts = [[one, 2 + turn] for turn in range(3)]
        seconds = [[2 + turn, other] for turn in range(10)]
        orders = [list(dict.fromkeys([*order, *range(12)])) for order in firsts + seconds]
        assert counted("ranks:1,0.3", logits_of(orders)).labels.item() == 0
    sums = WholeSums.zeros(*rule_of("ranks:1,0.3").votes.whole(2), 1, 2, CPU)
    sums.add(torch.tensor([0]), torch.tensor([[[0, 1]]] * 13 + [[[1, 0]]] * 13))
    assert sums.totals().tolist() == [[16.9, 16.9]]


@pytest.mark.parametrize("rule", [*si.RULES, "ranks:1,0.3"])
def test_a_tie_goes_to_the_lowest_class_whatever_the_order_of_passes(rule):
    logits = torch.tensor([[0.0, 4.0, 1.0, 2.0], [0.0, 1.0, 4.0, 2.0]])
    for passes in ([0, 1] * 7, [1, 0] * 7, [0] * 7 + [1] * 7, [1] * 7 + [0] * 7):
        assert counted(rule, logits[passes][:, None]).labels.item() == 1


@pytest.mark.parametrize("rule", ["soft", "logits"])
def test_sums_of_fractional_votes_decide_before_they_are_rounded_to_scores(rule):
    logits = torch.tensor([5.0, 5.0, -9.0]).expand(1000, 1, 3).clone()
    logits[7, 0, 1] += 2**-20
    answer = counted(rule, logits)
    assert answer.scores[0, 0] == answer.scores[0, 1]  # equal in float32
    assert answer.labels.item() == 1


class Given:
    """Passes with given logits (S, N, K) of images that hold their own row."""

    by_place = False

    def __init__(self, logits):
        self.logits = logits
        self.images = torch.arange(logits.shape[1]).view(-1, 1, 1, 1)

    def blocks(self, images, first, samples):
        yield self.logits[first : first + samples, images.flatten()]


def both(logits, rule):
    """The verdicts of a vote that stops early and of one that does not."""
    source, rules = Given(logits), {"": rule_of(rule)}
    how = {"samples": [len(logits)], "classes": logits.shape[2]}
    return [
        vote(source, source.images, rules, stop=stop, **how)["", len(logits)]
        for stop in ("exact", "fixed")
    ]


@pytest.mark.parametrize("rule", [*EXACT, "soft"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exact_never_stops_with_another_verdict_even_in_ties(rule, data):
    """Few values of the logits, so that ties and saturated votes are common."""
    passes, classes = data.draw(st.integers(1, 14)), data.draw(st.integers(2, 4))
    pool = data.draw(st.sampled_from([(0.0, 1.0), (0.0, 200.0), (0.0, 2.0, 200.0, 17.0)]))
    size = passes * 3 * classes
    values = data.draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
    stopped, whole = both(torch.tensor(values).view(passes, 3, classes), rule)
    assert stopped.labels.tolist() == whole.labels.tolist()
    assert (stopped.samples <= whole.samples).all()


@pytest.mark.parametrize(("leader", "used"), [(0, 6), (1, 7)])
def test_exact_stops_as_soon_as_a_tie_is_the_worst_for_a_lower_class(leader, used):
    """6 of 12 passes: a tie is the worst that can come, and it goes to the lower class."""
    one_sided = torch.eye(2)[leader].mul(200).expand(12, 1, 2)
    for rule in ("prediction", "soft"):
        stopped, _ = both(one_sided, rule)
        assert stopped.labels.item() == leader
        assert stopped.samples.item() == max(7, used)  # the first checkpoint is beyond the half


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12),
    st.integers(0, 300),
    st.sampled_from([1.0, 3.0, 0.1]),
)
@example([1.0, 0.0], 1, 1.0)
def test_a_margin_of_rounded_sums_is_never_too_large(votes, remaining, span):
    """The other class gets whole votes from then on: it must not pass a leader that was safe."""
    sums = FloatSums(1, 2, span, CPU)
    mine = torch.tensor(votes, dtype=torch.float64) * span
    sums.add(torch.arange(1), torch.stack([mine, mine / 3], 1)[:, None])
    (leader,) = sums.leaders(torch.arange(1)).tolist()
    margin = sums.margins(torch.arange(1), torch.tensor([leader]), remaining)[0, 1 - leader].item()
    worst = torch.zeros(remaining, 1, 2)
    worst[..., 1 - leader] = span
    sums.add(torch.arange(1), worst.double())
    after = sums.totals()[0]
    if margin > 0:
        assert after[leader] > after[1 - leader]
    if margin == 0:
        assert after[leader] >= after[1 - leader]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.permutations(range(5)), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sampled_from(["weighted", "ranks:1,0.3", "ranks:1e-9,1e9", "ranks:0.1,0.123456789"]),
)
def test_margins_are_exact_differences(orders, remaining, rule):
    sums = WholeSums.zeros(*rule_of(rule).votes.whole(5), 1, 5, CPU)
    sums.add(torch.arange(1), torch.tensor(orders)[:, None])
    weights = weights_of(rule, 5)
    exact = [sum(weights[order.index(k)] for order in orders) for k in range(5)]
    leader = sums.leaders(torch.arange(1))
    margins = sums.margins(torch.arange(1), leader, remaining)[0]
    for k in range(5):
        left = exact[int(leader)] - exact[k] - max(weights) * remaining
        assert margins[k].sign().item() == (left > 0) - (left < 0)


def test_totals_are_the_sums_rounded_once():
    for name, classes in (("weighted", 10), ("weighted", 80), ("ranks:1,0.3", 5)):
        rule = rule_of(name)
        logits = torch.randn(40, 3, classes, generator=torch.Generator().manual_seed(0))
        tally = Tally(3, [rule], CPU)
        tally.add(torch.arange(3), logits)
        weights = weights_of(name, classes)
        ranks = logits.argsort(2, descending=True).argsort(2)
        for image, row in enumerate(tally.sums(rule).totals().tolist()):
            for k, found in enumerate(row):
                truth = float(sum(weights[r] for r in ranks[:, image, k].tolist()))
                assert found == pytest.approx(truth, rel=1e-15, abs=0)
