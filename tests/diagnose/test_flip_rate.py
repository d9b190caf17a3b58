"""The flip rate of labels whose noise is known: recovered, covered, its pairs found, silence where nothing tells."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from prefalign._errors import DataError
from prefalign.diagnose import FlipRate, _flip_rate, flip_rate, from_margins, from_repeats
from prefalign.diagnose._ridge import PENALTIES, leave_out

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


def noisy_pairs(seed: int, rate: float, pairs: int, features: int = 8, norm: float = 4.0):
    """Differences of pairs labelled by a known linear reward, and which labels were flipped afterwards."""
    random = np.random.default_rng(seed)
    reward = random.normal(size=features)
    reward *= norm / np.linalg.norm(reward)
    differences = random.normal(size=(pairs, features))
    first_wins = random.random(pairs) < 1 / (1 + np.exp(-differences @ reward))
    flipped = random.random(pairs) < rate
    return np.where((first_wins ^ flipped)[:, None], differences, -differences), flipped


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_a_known_model_is_recovered(rate):
    differences, _ = noisy_pairs(seed=1, rate=rate, pairs=15_000)
    found = flip_rate(differences, ridges=(1.0,))
    assert found.rate == pytest.approx(rate, abs=0.03)
    assert found.holder == pytest.approx(rate, abs=0.03)
    assert found.can_tell
    assert found.agree


@pytest.mark.parametrize(
    ("features", "reward", "words"),
    [
        (8, "joint", "margins of a reward that was fitted with a rate by maximum likelihood on the other folds"),
        (11, "ridge", "margins of a ridge regression with each pair left out"),
    ],
)
def test_what_is_printed_says_how_the_reward_was_fitted(features, reward, words):
    found = flip_rate(noisy_pairs(seed=1, rate=0.2, pairs=400, features=features)[0], ridges=(1.0,))
    assert f"(maximum likelihood of rate and scale, from {words})" in str(found).splitlines()[0]
    assert found.to_json()["reward"] == reward
    assert "from the margins as given)" in str(from_margins(found.margins))


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_the_intervals_cover_the_rate_in_nine_of_ten_draws(rate):
    likely, moments = 0, 0
    for seed in range(5000, 5100):  # the moments' interval was mended on the draws 0 to 99
        found = flip_rate(noisy_pairs(seed, rate, pairs=2000)[0], ridges=(1.0,))
        likely += found.low <= rate <= found.high
        moments += found.holder_low <= rate <= found.holder_high
    assert likely >= 90
    assert moments >= 90


def test_the_most_suspicious_pairs_are_the_flipped_ones():
    differences, flipped = noisy_pairs(seed=3, rate=0.2, pairs=2000)
    found = flip_rate(differences, ridges=(1.0,))
    worst = found.most_suspicious(50)
    assert flipped[worst].mean() > 0.9
    assert np.all(np.diff(found.suspicion[worst]) <= 0)
    # What it calls a probability is one: as many pairs are flipped as the suspicions add up to.
    assert found.suspicion.sum() == pytest.approx(flipped.sum(), rel=0.15)


def test_a_reward_that_knows_nothing_cannot_tell():
    random = np.random.default_rng(0)  # the tenth draw agrees with 55 % of its labels
    found = [flip_rate(random.normal(size=(600, 6)), ridges=(1.0,)) for _ in range(12)]
    assert not any(one.can_tell for one in found)
    assert "cannot tell" in str(found[0])
    json.loads(json.dumps(found[0].to_json(), allow_nan=False))


def test_copies_of_a_pair_do_not_vouch_for_it():
    coins = np.random.default_rng(0).normal(size=(200, 40))
    once, thrice = (flip_rate(np.tile(coins, (times, 1))) for times in (1, 3))
    # Were copies not left out together, a reward that has seen a pair would be asked about it, and most would agree.
    assert thrice.accuracy == pytest.approx(once.accuracy, abs=0.08)
    assert not thrice.can_tell


def test_chance_is_beaten_by_three_standard_errors():
    """55 % of 600 labels: 0.5 + 3 * 0.5 / sqrt(600) = 0.561; of 6000 it is 0.519."""
    values = {"rate": 0.1, "low": 0.05, "high": 0.15, "holder": 0.1, "holder_low": 0.05, "holder_high": 0.15}
    arrays = {"margins": np.full(600, 3.0), "suspicion": np.zeros(600)}
    assert not FlipRate(**values, accuracy=0.55, pairs=600, **arrays).can_tell
    assert FlipRate(**values, accuracy=0.57, pairs=600, **arrays).can_tell
    assert FlipRate(**values, accuracy=0.55, pairs=6000, **arrays).can_tell
    unsure = {**arrays, "margins": np.full(600, 0.3)}  # a label is right with probability 0.57
    assert not FlipRate(**values, accuracy=0.9, pairs=600, **unsure).can_tell


def test_the_moments_interval_is_of_two_standard_errors(monkeypatch):
    """0.2 with a standard error of 0.05, where the likelihood's interval reaches less far."""
    monkeypatch.setattr(_flip_rate, "holder_rate", lambda margins, rate: (0.2, 0.05))
    random = np.random.default_rng(0)
    margins = random.normal(0.0, 6.0, size=1000)
    found = from_margins(np.where(random.random(1000) < 0.2, -np.abs(margins), np.abs(margins)))
    assert found.high - found.rate < 0.08 > found.rate - found.low
    assert (found.holder_low, found.holder_high) == pytest.approx((0.102, 0.298))


def test_one_weak_feature_cannot_tell_the_rate_even_where_it_beats_chance():
    # At margins near 0 the mixture depends on (1 - 2 eps) * scale alone: .3 and a larger scale say the same.
    random = np.random.default_rng(1)
    margins = random.normal(0.0, 0.3, size=4000)
    margins = np.where(random.random(4000) < 1 / (1 + np.exp(-margins)), margins, -margins)
    found = from_margins(margins)
    assert found.accuracy > 0.53
    assert found.high - found.low > 0.3
    assert not found.can_tell


def test_margins_that_are_nowhere_sure_cannot_tell():
    """A reward that is mostly noise: 40 % of flips look like doubt, whatever the interval says."""
    random = np.random.default_rng(0)
    reward = random.normal(size=100) * 0.4
    for _ in range(12):
        differences = random.normal(size=(2000, 100))
        right = random.random(2000) < 1 / (1 + np.exp(-differences @ reward))
        found = flip_rate(np.where((right ^ (random.random(2000) < 0.4))[:, None], differences, -differences))
        assert not found.can_tell or found.low < 0.4 < found.high


def test_the_scale_of_the_margins_does_not_matter():
    differences, _ = noisy_pairs(seed=5, rate=0.3, pairs=1000)
    margins = differences.sum(axis=1)
    first, second = from_margins(margins), from_margins(1000.0 * margins)
    assert (first.rate, first.low, first.high) == (second.rate, second.low, second.high)
    np.testing.assert_allclose(first.margins, second.margins)


def test_grouped_margins_tell_what_single_ones_tell():
    random = np.random.default_rng(2)
    margins = random.normal(0.0, 4.0, size=2000)
    wrong = (random.random(2000) > 1 / (1 + np.exp(-margins))) ^ (random.random(2000) < 0.2)
    margins = np.where(wrong, -margins, margins)
    once, thrice = from_margins(margins), from_margins(np.tile(margins, 3))
    assert thrice.rate == pytest.approx(once.rate, abs=0.0051)
    assert thrice.high - thrice.low == pytest.approx((once.high - once.low) / math.sqrt(3), rel=0.15)


def test_suspicion_is_the_posterior_of_a_flip():
    found = from_margins(np.where(np.arange(400) % 4 == 0, -3.0, 3.0))  # a quarter contradicts, margins all alike
    clean = 1 / (1 + np.exp(-found.margins))
    posterior = found.rate * (1 - clean) / ((1 - found.rate) * clean + found.rate * (1 - clean))
    np.testing.assert_allclose(found.suspicion, posterior)
    assert set(found.most_suspicious(100)) == set(range(0, 400, 4))


def test_features_of_large_and_tiny_scale_count_alike():
    differences, _ = noisy_pairs(seed=6, rate=0.2, pairs=1000)
    scaled = differences * 10.0 ** np.arange(-4, 4)
    assert flip_rate(scaled, ridges=(1.0,)).rate == pytest.approx(flip_rate(differences, ridges=(1.0,)).rate)


@pytest.mark.parametrize(
    ("agreeing", "compared", "rate"),
    [
        (100, 100, 0.0),  # never a contradiction
        (82, 100, 0.1),  # .9^2 + .1^2 = .82
        (68, 100, 0.2),  # .64 + .04
        (58, 100, 0.3),
        (52, 100, 0.4),
        (50, 100, 0.5),
        (20, 100, 0.5),  # below a half: nothing to learn
    ],
)
def test_repeated_labels_by_hand(agreeing, compared, rate):
    found, low, high = from_repeats(agreeing, compared)
    assert found == pytest.approx(rate)
    assert low <= found <= high


def test_two_labels_of_many_pairs_by_hand():
    # Wilson's interval of 820 in 1000 is .79498 to .84257 (z = 1.96); (1 - sqrt(2A - 1)) / 2 at its ends.
    rate, low, high = from_repeats(820, 1000)
    assert rate == pytest.approx(0.1)
    assert low == pytest.approx(0.08613, abs=1e-5)
    assert high == pytest.approx(0.11596, abs=1e-5)


@pytest.mark.parametrize(("agreeing", "compared"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(agreeing, compared):
    with pytest.raises(DataError, match="agreeing"):
        from_repeats(agreeing, compared)


@pytest.mark.parametrize(
    ("differences", "options", "word"),
    [
        (np.zeros((100, 3)), {}, "zero"),
        (np.ones((49, 3)), {}, "at least 50"),
        (np.ones(100), {}, "pairs, features"),
        (np.where(np.arange(300).reshape(100, 3) == 150, np.nan, 1.0), {}, "pair 50"),
        (np.ones((100, 3)), {"folds": 1}, "folds"),
        (np.ones((100, 3)), {"folds": 101}, "folds"),
        (np.ones((100, 3)), {"ridges": ()}, "ridges"),
        (np.ones((100, 3)), {"ridges": (1.0, 0.0)}, "ridges"),
    ],
)
def test_features_that_cannot_be_used_are_refused(differences, options, word):
    with pytest.raises(DataError, match=word):
        flip_rate(differences, **options)


@pytest.mark.parametrize("margins", [np.ones(20), np.full(100, np.inf), np.ones((100, 2))])
def test_margins_that_cannot_be_used_are_refused(margins):
    with pytest.raises(DataError, match="margins"):
        from_margins(margins)


def test_the_two_estimators_may_disagree():
    values = {"rate": 0.1, "low": 0.05, "high": 0.15, "accuracy": 0.8, "pairs": 500}
    arrays = {"margins": np.full(500, 3.0), "suspicion": np.zeros(500)}
    apart = FlipRate(**values, holder=0.3, holder_low=0.25, holder_high=0.35, **arrays)
    assert not apart.agree
    assert "disagree" in str(apart)


def test_pairs_left_out_in_closed_form_are_left_out():
    """Against one fit for each group of copies, by normal equations."""
    random = np.random.default_rng(0)
    differences = random.normal(size=(40, 6)) + 0.4
    differences[30:] = differences[:10] * np.where(np.arange(10) % 2, 1.0, -1.0)[:, None]  # copies and exchanges
    group = np.r_[np.arange(30), np.arange(10)]
    size = (differences**2).sum() / 40
    scores = {}
    for penalty in PENALTIES:
        margins = np.empty(40)
        for one in range(30):
            kept = differences[group != one]
            gram = kept.T @ kept + penalty * size * np.eye(6)
            margins[group == one] = differences[group == one] @ np.linalg.solve(gram, kept.sum(axis=0))
        scores[((1.0 - margins) ** 2).mean()] = margins
    np.testing.assert_allclose(leave_out(differences, group), scores[min(scores)], atol=1e-9)


def test_many_features_and_few_pairs_still_tell():
    """300 features, of which the pairs differ in one direction most, as hidden states do."""
    random = np.random.default_rng(4)
    direction = random.normal(size=300) / 300**0.5
    found = []
    for _ in range(5):
        better = np.abs(random.normal(1.5, 0.7, size=600))[:, None] * direction * 6.0
        flipped = random.permutation(600) < 120
        found.append(flip_rate(np.where(flipped[:, None], -1.0, 1.0) * (better + random.normal(size=(600, 300)))))
        assert flipped[found[-1].most_suspicious(50)].mean() > 0.4
        assert found[-1].low < 0.2 < found[-1].high
    assert np.mean([one.rate for one in found]) == pytest.approx(0.2, abs=0.07)
