"""Two statistics that grow with the difference of two samples; calibrated by `permutation`.

Squared maximum mean discrepancy (Gretton et al. 2012, "A kernel two-sample test") sees what moves whole pictures apart
and is the measure of severity; a classifier (Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests") sees a
small shift of many dimensions, which hides from a kernel behind the few in which pictures differ most.
"""

import numpy as np

from vlm_assets.monitoring.permutation import Floats, Statistic

SMALLEST_RELATIVE_DISTANCE = 1e-12
RIDGE = 0.1  # of the rows: the penalty on standardised dimensions


def squared_mmd(rows: Floats) -> Statistic:
    """Unbiased squared MMD (Gretton, eq. 3) of pooled rows (N, d), by a Gaussian kernel as wide as their median
    distance: the same under every relabelling and free of the embedding's unit.
    """
    kernel = _gaussian_kernel(rows)  # (N, N), zero diagonal
    sums, total = kernel.sum(axis=1), kernel.sum()

    def statistic(labels: Floats) -> Floats:
        n = labels[0].sum()
        m = labels.shape[1] - n
        within_reference = np.einsum("pi,pi->p", labels @ kernel, labels)
        across = labels @ sums - within_reference
        within_current = total - within_reference - 2 * across
        return within_reference / (n * (n - 1)) + within_current / (m * (m - 1)) - 2 * across / (n * m)

    return statistic


def classifier_fit(leave_one_out: Floats) -> Statistic:
    """How well a ridge classifier tells the labels of rows that it was not fitted on: 1 all, at most 0 none.

    Predictive R2, that is 1 - PRESS / variance. Each row is predicted by the fit to all others; for ridge regression
    that is in closed form (Allen 1974), so a relabelling costs one product with the (N, N) matrix `leave_one_out`.
    """

    def statistic(labels: Floats) -> Floats:
        centred = labels - labels.mean(axis=1, keepdims=True)
        errors = centred @ leave_one_out.T
        return 1 - np.einsum("pi,pi->p", errors, errors) / np.einsum("pi,pi->p", centred, centred)

    return statistic


def classifier_auc(leave_one_out: Floats, labels: Floats) -> float:
    """Area under the ROC curve of the same predictions for labels (1, N): 0.5 = cannot tell, 1 = tells every row.

    Where there is nothing to learn, rows left out are predicted to be of the other side: below 0.5 counts as 0.5.
    """
    centred = labels - labels.mean()
    scores = np.round(labels[0] - (centred @ leave_one_out.T)[0], 12)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share their mean rank
    n = int(labels.sum())
    m = labels.shape[1] - n
    return max(0.5, float((ranks[labels[0] == 1].sum() - n * (n + 1) / 2) / (n * m)))


def left_out_errors(rows: Floats) -> Floats:
    """The (N, N) matrix that makes errors of prediction of centred labels, for pooled rows (N, d).

    I - H, each row over 1 - h_ii, H the hat matrix of ridge regression with an intercept on standardised rows.
    """
    count = len(rows)
    centred = rows - rows.mean(axis=0)
    deviation = centred.std(axis=0)
    # a dimension that is constant but for rounding says nothing, standardised it would be noise
    varies = deviation > SMALLEST_RELATIVE_DISTANCE * np.abs(rows).max(axis=0, initial=0.0)
    standard = centred[:, varies] / deviation[varies]  # (N, d')
    penalised = standard.T @ standard + RIDGE * count * np.eye(standard.shape[1])
    rest = np.eye(count) - standard @ np.linalg.solve(penalised, standard.T)
    leverage_left = np.maximum(np.diag(rest) - 1 / count, SMALLEST_RELATIVE_DISTANCE)
    return rest / leverage_left[:, None]


def _gaussian_kernel(rows: Floats) -> Floats:
    """exp(-d^2 / (2 median^2)) of all pairs of rows (N, d); the diagonal, which unbiased sums leave out, is 0."""
    centred = rows - rows.mean(axis=0)
    norms = np.einsum("ij,ij->i", centred, centred)
    squared = norms[:, None] + norms[None, :] - 2 * centred @ centred.T
    # equal rows must be at distance 0 exactly, or the median of constants is the rounding error
    squared[squared < SMALLEST_RELATIVE_DISTANCE * np.square(rows).sum(axis=1).max()] = 0.0
    kernel = np.exp(squared / (-2 * _typical(squared[np.triu_indices(len(rows), 1)])))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _typical(squared_distances: Floats) -> float:
    """Their median; where most pairs are equal, the mean of the others; where all are, 1."""
    median = float(np.median(squared_distances))
    if median > 0:
        return median
    positive = squared_distances[squared_distances > 0]
    return float(positive.mean()) if positive.size else 1.0
