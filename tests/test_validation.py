"""Pseudo-anomaly validation with models whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm

from ad.config import ERRORS, Scoring
from ad.cutpaste import SIZES
from ad.detector import Member
from ad.judging import Examples, aurocs, held_out_maps, judge, judge_best
from ad.metrics import standard_error
from ad.pictures.found import pixel_threshold
from ad.sets.rules import known_scores
from ad.sets.votes import common_normals, vote_weights
from ad.threshold import decide_limits, false_alarms
from ad.validation import DAMAGED, make_examples, validate

SCORING = Scoring(windows=(0,), window_input=0, error="mse", sigma=0.0, topk=0.001)


def images(count=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(90, 160, (3, 60, 80), dtype=torch.uint8, generator=generator)
            for _ in range(count)]


def test_examples_hold_every_family_and_size_and_never_change():
    examples = make_examples(images(), seed=7, size=64)
    normals, positives, sizes = examples.normals, examples.positives, examples.kinds
    assert len(normals) == 3 and len(positives) == len(sizes) == 27
    assert list(examples.sources) == [0] * 9 + [1] * 9 + [2] * 9
    assert {s: sizes.count(s) for s in SIZES} == dict.fromkeys(SIZES, 9)
    assert all(p.shape == (3, 48, 64) and p.dtype == torch.uint8 for p in normals + positives)
    again = make_examples(images(), seed=7, size=64).positives
    assert all(torch.equal(a, b) for a, b in zip(positives, again))
    # An image's positives do not depend on which other images there are, only on its number.
    fewer = make_examples(images(2), seed=7, size=64).positives
    assert all(torch.equal(a, b) for a, b in zip(positives, fewer))
    assert not torch.equal(positives[0], make_examples(images(), 8, (), 64).positives[0])


def test_normals_and_positives_have_the_same_size():
    """Positives enlarged to the largest size there is would have other scores for that alone."""
    examples = make_examples(images(), seed=0)
    assert {i.shape for i in [*examples.normals, *examples.positives]} == {(3, 60, 80)}
    assert all(torch.equal(a, b) for a, b in zip(examples.normals, images()))
    labelled = make_examples(images(), 0, images(5)[3:])
    assert labelled.kinds == ["labelled"] * 2 and labelled.sources == [-1, -1]
    assert torch.equal(labelled.positives[1], images(5)[4])


def test_many_images_are_not_all_damaged():
    examples = make_examples(images(DAMAGED + 4), seed=0)
    assert len(examples.normals) == DAMAGED + 4 and len(examples.positives) == 9 * DAMAGED


class Oracle(torch.nn.Module):
    """Calls strange what is not among the normal images it was given."""

    def __init__(self, normals):
        super().__init__()
        self.normals = torch.stack(normals).float() / 255

    def anomaly_maps(self, batch, names):
        error = (batch[:, None] - self.normals).abs().amax(2, keepdim=True)
        nearest = error.flatten(2).mean(2).argmin(1)
        return {"mse": error[torch.arange(len(batch)), nearest]}

    def loss(self, batch, generator):
        return {"loss": batch.mean()}


class Blind(Oracle):
    def anomaly_maps(self, batch, names):
        return {"mse": torch.ones_like(batch[:, :1])}


@pytest.mark.parametrize("model, expected", [(Oracle, 1.0), (Blind, 0.5)])
def test_auroc_of_an_oracle_and_of_the_blind(model, expected):
    examples = make_examples(images(), seed=0, size=64)
    result = validate(model(examples.normals), examples, SCORING, "cpu", 16)
    assert [result[k] for k in ("auroc", "auroc_small", "auroc_medium", "auroc_large")] == [
        expected] * 4
    mean = sum(n.float().mean().item() / 255 for n in examples.normals) / 3
    assert result["val_loss"] == pytest.approx(mean, rel=1e-5)


class Distance(torch.nn.Module):
    """A memory by hand: the distance to the mean of the images that it was given, as `fused`."""

    def __init__(self, known):
        super().__init__()
        self.mean = torch.stack(list(known)).float().mean(0) / 255

    def anomaly_maps(self, batch, names):
        error = (batch - self.mean).abs().mean(1, keepdim=True)
        return {name: error + 0.01 * i for i, name in enumerate(("ssim", "mask", "neighbours"))}


@pytest.mark.parametrize("calibration", ["global", "border", "position", "auto"])
def test_positives_that_are_the_normals_are_a_coin_toss(calibration):
    """Judged with statistics that hold their undamaged twins, positives would look better than
    new images do: 0.5 would become 0.1."""
    normals = images(6)
    examples = Examples(normals, normals, range(6), ["small"] * 6)
    folds = [(Distance(normals[:i] + normals[i + 2:]), [i, i + 1]) for i in (0, 2, 4)]
    folds.append((Distance(normals), []))
    scoring = Scoring(windows=(0,), window_input=0, error="mse", calibration=calibration)
    saved = judge(*held_out_maps(folds, examples, scoring, "cpu"), examples, scoring)
    assert saved["positives"] == saved["scores"] and aurocs(saved)["auroc"] == 0.5
    # What is the worth of it: by one memory of all images and one calibration it is far from 0.5.
    biased = Examples(normals, normals, [-1] * 6, ["small"] * 6)
    maps = held_out_maps(folds, biased, scoring, "cpu")
    assert abs(aurocs(judge(*maps, biased, scoring))["auroc"] - 0.5) > 0.2


def test_maps_come_from_models_that_do_not_know_the_image():
    normals = images(5)
    examples = Examples(normals, normals + normals[:1], [0, 1, 2, 3, 4, -1], ["small"] * 6)
    models = [Distance([image]) for image in images(3)]
    folds = [(models[0], [3, 0]), (models[1], [1, 2, 4]), (models[2], [])]
    maps, damaged = held_out_maps(folds, examples, SCORING, "cpu")

    def map_of(model, image):
        return model.anomaly_maps(image[None].float() / 255, ())["ssim"]
    for index, model in enumerate((0, 1, 1, 0, 1)):
        assert torch.equal(maps[index]["ssim@0"], map_of(models[model], normals[index]))
        assert torch.equal(damaged[index]["ssim@0"], map_of(models[model], normals[index]))
    assert torch.equal(damaged[5]["ssim@0"], map_of(models[2], normals[0]))


def test_maps_of_a_memory_are_left_out_only_where_they_clearly_harm():
    """Noise by far larger than what the others tell; but a small difference may be chance."""
    class Noisy(Distance):
        share = 1.0

        def anomaly_maps(self, batch, names):
            found = super().anomaly_maps(batch, names)["ssim"]
            noise = (batch.mean((1, 2, 3), keepdim=True) * 9999).sin().mul(9).exp()
            return {"ssim": found, "mask": found,
                    "neighbours": found * (1 - self.share) + noise * self.share}

    examples = make_examples([(i * 0.4).byte() + 100 for i in images(24)], seed=0)
    scoring = Scoring(windows=(0,), window_input=0, error="fused", calibration="global")
    model = Noisy(examples.normals)
    for model.share, kept in ((1.0, "repaired"), (0.0, "fused")):
        maps = held_out_maps([(model, range(24))], examples, scoring, "cpu")
        found = aurocs(judge(*maps, examples, scoring))["auroc"]
        best = judge_best(*maps, examples, scoring)
        assert best["scoring"]["error"] == kept
        lead = aurocs(best)["auroc"] - found
        assert lead > standard_error(aurocs(best)["auroc"], 24) if kept == "repaired" else lead == 0
        assert ("neighbours@0" in best["mean"]) == (kept == "fused")
    assert ERRORS["repaired"] == ("ssim", "mask")


def test_votes_follow_the_evidence():
    assert vote_weights([0.8, 0.8, 0.8], [9, 9, 9]) == pytest.approx([1 / 3] * 3)
    # d' = sqrt(2) * 1 and sqrt(2) * 2 standard deviations, of very many images: one to two.
    assert vote_weights([norm.cdf(1), norm.cdf(2)], [10 ** 6] * 2) == pytest.approx(
        [1 / 3, 2 / 3], abs=1e-3)
    # Of six images each the difference is within its error: equal.
    assert vote_weights([0.9, 0.95], [6, 6]) == pytest.approx([0.5, 0.5])
    # A too easy 1.0 of few images does not outvote a good figure of many.
    weights = vote_weights([1.0, 0.97], [5, 200])
    assert weights[0] < 0.6
    assert vote_weights([0.51, 0.95], [1000, 1000])[0] == 0.0  # nothing to add
    assert vote_weights([0.3, 0.5], [9, 9]) == pytest.approx([0.5, 0.5], abs=0.5)
    assert vote_weights([None, 0.9], [9, 9]) == [0.5, 0.5]  # not validated, as epoch_N.pt
    assert sum(vote_weights([1.0, 0.99, 0.6], [8, 9, 10])) == pytest.approx(1)


@pytest.mark.parametrize("above, count", [(0, 4), (0, 101), (2, 30), (29, 30), (11, 1100)])
def test_false_alarms_are_those_of_the_beta_distribution(above, count):
    expected, most = false_alarms(above, count)
    assert expected == pytest.approx(beta.mean(above + 1, count - above))
    assert most == pytest.approx(beta.ppf(0.9, above + 1, count - above), abs=1e-6)
    assert false_alarms(count, count) == (1.0, 1.0)


def test_the_promised_bound_holds():
    """Nine times in ten: thresholds by 20 normal scores, false alarms of very many others."""
    rng = np.random.default_rng(0)
    kept, seen = [], []
    for _ in range(2000):
        normal = rng.normal(size=20)
        threshold = np.sort(normal)[-2]
        expected, most = false_alarms(1, 20)
        seen.append(norm.sf(threshold))
        kept.append(seen[-1] <= most)
    assert np.mean(kept) == pytest.approx(0.9, abs=0.02)
    assert np.mean(seen) == pytest.approx(expected, rel=0.05)


def member(names, scores, weight=0.5, pixels=None, positives=(), sources=()):
    saved = {"scores": list(scores), "positives": list(positives), "sources": list(sources),
             "pixels": torch.tensor(pixels if pixels is not None else [[0.0]] * len(names))}
    return Member("run", None, {"category": "c", "validation": list(names)}, saved, None, weight)


def test_thresholds_of_several_members_are_the_mean_of_their_own():
    names = [f"{i}.png" for i in range(6)]
    first = member(names, [0, 1, 2, 3, 4, 5])
    second = member(names[::-1], [0, 1, 2, 3, 4, 5])  # of the same images, the other way round
    limits = decide_limits([first, second], "quantile:0.99")
    assert limits.threshold == pytest.approx(1.46, abs=0.01)  # of both alike
    # The votes cancel each other: none is above, and only these six are counted.
    assert "at most 31.9%" in limits.describe()  # 1 - 0.1 ** (1 / 6)
    third = member([f"other{i}" for i in range(6)], [0, 1, 2, 3, 4, 5])
    assert common_normals([first, third], [[1.0] * 6] * 2) is None
    limits = decide_limits([first, third], "quantile:0.99")
    assert limits.threshold == pytest.approx(1.46, abs=0.01)
    # The rates add up; each bound holds 19 times in 20, so that both do 9 times in 10.
    assert "at most 78.6%" in limits.describe()  # 2 (1 - 0.05 ** (1 / 6))
    some = member(names[:3], [7.0, 8.0, 9.0])
    assert common_normals([first, some], [range(6), [5, 5, 5]]).tolist() == [2.5, 3.0, 3.5]
    # The votes on the three common images are -1.34, -0.44 and 0.46, all below the mean of both
    # thresholds, 1.46 and 1.22, and only these three bound the rate: 1 - 0.1 ** (1 / 3).
    limits = decide_limits([first, some], "quantile:0.99")
    assert limits.threshold == pytest.approx(1.34, abs=0.01)
    assert "25.0%, at most 53.6%" in limits.describe()
    # Of the votes one, 0.46, is above the mean of 0.29 and 0, the members' own thresholds here.
    assert "50.0%, at most 80.4%" in decide_limits([first, some], "quantile:0.5").describe()


def test_the_bound_of_a_vote_of_unequal_members_holds():
    """64 normal images judge one member and six of them the other, whose scores correlate by 0.5:
    by the votes on the six alone a seventh of new images would be above the threshold."""
    rng, names = np.random.default_rng(0), [str(i) for i in range(64)]
    kept, seen = [], []
    for _ in range(300):
        one, other = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=64).T
        members = [member(names, one), member(names[:6], other[:6])]
        limits = decide_limits(members, "quantile:0.99")
        mean = -np.mean([m.normal_scores.mean() / m.normal_scores.std() for m in members])
        a, b = (0.5 / m.normal_scores.std() for m in members)
        seen.append(norm.sf(limits.threshold, mean, np.sqrt(a * a + b * b + a * b)))
        kept.append(seen[-1] <= limits.bound)
    assert limits.bound == pytest.approx(1 - 0.1 ** (1 / 6), abs=1e-4)
    assert np.mean(kept) >= 0.9 and np.mean(seen) < 1 / 14


def test_a_threshold_is_not_below_the_images_that_were_learned():
    own = member("abcdef", [0, 1, 2, 3, 4, 5], 1.0)
    own.calibration["taught"] = [0.0, 1.0, 7.0]
    limits = decide_limits([own], "quantile:0.99")
    z = (7 - 2.5) / own.normal_scores.std()
    assert limits.threshold == pytest.approx(z, abs=1e-4)
    assert "14.3%, at most 31.9%" in limits.describe()  # by the six that did not teach
    own.calibration["taught"] = [0.0, 1.0, 2.0]  # a model knows these: they cannot lower it
    assert decide_limits([own], "quantile:0.99").threshold == pytest.approx(1.46, abs=0.01)


def test_few_normal_images_are_called_few():
    assert "8 are few" in decide_limits([member(range(8), range(8), 1.0)],
                                        "quantile:0.99").describe()
    # A number, which is of the scores 0 (the middle, 14.5) to 1 (the highest), is judged, too.
    text = decide_limits([member(range(30), range(30), 1.0)], "0.5").describe()
    assert "are few" not in text and "expected false alarms 29.0%" in text  # (8 above + 1) / 31


@pytest.mark.parametrize("rule, zero, one", [
    ("quantile:0.99", 2, 9), ("quantile:0.5", 2, 3), ("1", 2, 9), ("2", 2, 16), ("0.5", 2, 5.5)])
def test_a_score_is_0_for_the_middle_normal_image_and_1_at_the_threshold(rule, zero, one):
    """The middle of 0, 1, 2, 3, 9 is 2; half of them are at most 3, the next of the scores."""
    names, scores = "abcdef"[:5], [0.0, 1.0, 2.0, 3.0, 9.0]
    if rule == "quantile:0.5":
        names, scores, zero = "abcdef", [0.0, 1.0, 2.0, 3.0, 4.0, 9.0], 2.5
    own = member(names, scores, 1.0)
    limits = decide_limits([own], rule)
    z = (np.array([zero, one, 20.0]) - own.normal_scores.mean()) / own.normal_scores.std()
    np.testing.assert_allclose(limits.scale(z), [0, 1, (20 - zero) / (one - zero)], atol=1e-5)


def test_thresholds_at_or_below_the_middle_still_order_images():
    own = member("abcd", [1.0, 1.0, 1.0, 1.0], 1.0)  # all the same: no distance to measure by
    for limits in (decide_limits([own], "quantile:0.99"),
                   decide_limits([member("abc", [0.0, 1.0, 5.0], 1.0)], "-1")):
        scores = limits.scale(limits.threshold + np.array([-1.0, 0.0, 2.0]))
        np.testing.assert_allclose(scores, [0, 1, 3], atol=1e-6)


def test_thresholds_of_masks_are_of_the_mean_map():
    pixels = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    one = member(["a", "b"], [0, 1], 1.0, pixels)
    assert pixel_threshold([one], 0.5) == 3.5
    two = member(["b", "a"], [0, 1], 0.5, pixels)
    one.weight = 0.5
    assert pixel_threshold([one, two], 1.0) == pytest.approx(4.5)  # not 6: never both at once


def test_a_normal_image_counts_as_often_as_pseudo_anomalies_but_not_as_labelled_ones():
    scores, positives = [1.0, 2.0, 3.0], np.linspace(2, 9, 27)
    normal, anomalous = known_scores(member("abc", scores, 1.0, None, positives,
                                            np.repeat([0, 1, 2], 9)))
    assert len(anomalous) == 27 and len(normal) == 27
    assert normal.mean() == pytest.approx(0, abs=1e-9)
    assert normal.std() == pytest.approx(1, abs=1e-4)
    normal, anomalous = known_scores(member("abc", scores, 1.0, None, [5.0, 6.0], [-1, -1]))
    assert len(anomalous) == 2 and len(normal) == 3
