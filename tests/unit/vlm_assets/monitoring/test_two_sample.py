"""The classifier's closed form is what fitting it again without each row gives; both tests together keep the rate."""

import numpy as np
import pytest

from vlm_assets.monitoring.drift import embedding_test
from vlm_assets.monitoring.permutation import ENOUGH, observed_labels, permutation_p_value
from vlm_assets.monitoring.two_sample import RIDGE, classifier_auc, classifier_fit, left_out_errors


def left_out_predictions(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each label as predicted by a ridge regression with intercept that was fitted without its row."""
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    penalty = RIDGE * len(rows) * np.eye(rows.shape[1] + 1)
    penalty[0, 0] = 0.0
    predicted = []
    for row in range(len(rows)):
        others = np.arange(len(rows)) != row
        design = np.column_stack([np.ones(len(rows)), standard])
        seen = design[others]
        predicted.append(design[row] @ np.linalg.solve(seen.T @ seen + penalty, seen.T @ labels[others]))
    return np.array(predicted)


@pytest.fixture
def two_samples():
    generator = np.random.default_rng(1)
    return np.concatenate([generator.normal(size=(30, 5)), generator.normal(size=(20, 5)) + 0.5])


def test_the_closed_form_equals_leaving_each_row_out(two_samples):
    labels = observed_labels(30, 20)
    errors = labels[0] - left_out_predictions(two_samples, labels[0])
    expected = 1 - np.square(errors).sum() / np.square(labels[0] - labels[0].mean()).sum()
    assert classifier_fit(left_out_errors(two_samples))(labels)[0] == pytest.approx(expected, rel=1e-9)


def test_the_auc_is_that_of_the_left_out_predictions(two_samples):
    from sklearn.metrics import roc_auc_score

    labels = observed_labels(30, 20)
    expected = roc_auc_score(labels[0], left_out_predictions(two_samples, labels[0]))
    assert classifier_auc(left_out_errors(two_samples), labels) == pytest.approx(expected)


def test_a_small_shift_of_every_dimension_hides_from_the_kernel_and_not_from_the_classifier():
    generator = np.random.default_rng(2)
    scales = np.repeat([100.0, 1.0], [4, 36])
    x, y = generator.normal(size=(300, 40)) * scales, (generator.normal(size=(200, 40)) + 0.25 * (scales < 2)) * scales
    test = embedding_test(x, y)
    assert test.p_mmd > 0.01
    assert test.p_value <= 0.01
    assert test.classifier_auc > 0.7


def test_p_values_of_both_tests_together_keep_the_rate():
    generator = np.random.default_rng(3)
    alarms = sum(
        embedding_test(*np.split(generator.normal(size=(60, 12)) ** 3, [35]), permutations=99, seed=draw).p_value <= 0.1
        for draw in range(200)
    )
    assert alarms <= 200 * 0.1 + 3.3 * np.sqrt(200 * 0.1 * 0.9)


def test_rows_of_constants_are_told_apart_only_where_they_differ():
    alike = embedding_test(np.full((50, 3), 0.1), np.full((60, 3), 0.1))
    assert (alike.p_value, alike.classifier_auc) == (1.0, 0.5)
    assert embedding_test(np.full((50, 3), 0.1), np.full((60, 3), 0.2)).classifier_auc == 1.0


def test_a_window_without_drift_takes_few_shuffles():
    asked = []

    def statistic(labels):
        asked.append(len(labels))
        return labels[:, 0]  # as often as not at least what was observed

    _, p_value = permutation_p_value(statistic, 50, 50, 400_000, np.random.default_rng(0))
    assert sum(asked) == 101
    assert p_value == pytest.approx(0.5, abs=0.3)
    assert ENOUGH / p_value <= 100


def test_a_small_p_value_takes_all_of_them():
    rows = np.concatenate([np.zeros((40, 2)), np.ones((40, 2))])
    _, p_value = permutation_p_value(classifier_fit(left_out_errors(rows)), 40, 40, 5_000, np.random.default_rng(0))
    assert p_value == 1 / 5_001
