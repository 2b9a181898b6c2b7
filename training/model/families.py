"""Model families for P(correct | prompt, rung).

Families differ in how they are fitted. Each ends as layers of matrices, so one forward pass, here and in ONNX, serves
all of them:

PooledLogit   logit P_b = a_b + beta.x + s_b * gamma.x, one slope shared by all rungs
Network       hidden layers with one sigmoid per rung; without hidden layers, a logistic regression per rung
Cure          P_b = pi(x) * sigmoid(a_b + eta.x) with rising a_b: some prompts are never solved at any budget
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.neural_network import MLPClassifier

from training.arrays import Matrix

Layers = list[tuple[Matrix, Matrix]]
"""Weights [inputs, outputs] and biases [outputs] of each layer; ReLU between them."""

MOST_COPIES = 4
"""Copies of every prompt in a table with fractional labels; a fraction is the share of copies labelled right."""

ITERATIONS = 300
BATCH, STEPS = 200, 1_000
"""A network trains for at least STEPS steps of BATCH rows, however few rows there are."""


@dataclass(frozen=True)
class Head:
    """A fitted model of any family.

    Attributes:
        members: networks whose probabilities are averaged.
        cured: True if the first output is the logit of being solvable at any budget; it multiplies the others.
    """

    members: list[Layers]
    cured: bool = False

    def predict(self, x: Matrix) -> Matrix:
        """P(correct) [prompts, rungs] of scaled features [prompts, width]."""
        return np.asarray(np.mean([self._forward(layers, x) for layers in self.members], axis=0))

    def _forward(self, layers: Layers, x: Matrix) -> Matrix:
        for weights, biases in layers[:-1]:
            x = np.maximum(x @ weights + biases, 0)
        p = np.asarray(expit(x @ layers[-1][0] + layers[-1][1]))
        return p[:, :1] * p[:, 1:] if self.cured else p


class ModelFamily(Protocol):
    """A way to fit a head."""

    def fit(self, x: Matrix, y: Matrix) -> Head:
        """Fit scaled features [prompts, width] to correctness [prompts, rungs], 0..1."""
        ...

    def repeated(self, times: float) -> "ModelFamily":
        """The family for rows that say each thing `times` times, such as a question in several conversations."""
        ...


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron, or the average of several that start from different seeds.

    Attributes:
        hidden: width of each hidden layer.
        penalty: scikit-learn's alpha, the weight of the squared weights.
        passes: most passes over the rows; few rows get more, see STEPS.
        members: networks to average.
    """

    hidden: tuple[int, ...]
    penalty: float
    passes: int
    members: int = 1

    def fit(self, x: Matrix, y: Matrix) -> Head:
        """Fit one network per seed 0, 1, ...; see ModelFamily."""
        x, labels = copies(x, y)
        return Head([self._layers(x, labels, seed) for seed in range(self.members)])

    def repeated(self, times: float) -> "Network":
        """With so many times fewer passes, or what stands there often would be learned by heart."""
        return replace(self, passes=max(1, round(self.passes / times)))

    def _layers(self, x: Matrix, labels: NDArray[np.int_], seed: int) -> Layers:
        if labels.shape[1] == 1:  # scikit-learn reads a column of labels as a vector
            labels = labels[:, 0]
        passes = max(self.passes, STEPS * BATCH // len(x))
        model = MLPClassifier(
            self.hidden, alpha=self.penalty, max_iter=passes, batch_size=min(BATCH, len(x)), random_state=seed
        )
        model.fit(x, labels)
        return list(zip(model.coefs_, model.intercepts_, strict=True))


@dataclass(frozen=True)
class PooledLogit:
    """One logit for all rungs, whose slope tilts with the position of the rung; `penalty` is for squared slopes."""

    penalty: float

    def fit(self, x: Matrix, y: Matrix) -> Head:
        """Minimise the penalised log-loss; see ModelFamily."""
        width, rungs = x.shape[1], y.shape[1]
        tilt = np.linspace(-1, 1, rungs)

        def loss(w: Matrix) -> tuple[float, Matrix]:
            beta, gamma, bias = np.split(w, [width, 2 * width])
            p = expit((x @ beta)[:, None] + np.outer(x @ gamma, tilt) + bias)
            gap = (p - y) / y.size
            slopes = np.concatenate([x.T @ gap.sum(axis=1), x.T @ (gap @ tilt)]) + self.penalty * w[: 2 * width]
            value = log_loss(y, p) + self.penalty / 2 * float(w[: 2 * width] @ w[: 2 * width])
            return value, np.concatenate([slopes, gap.sum(axis=0)])

        w = _minimum(loss, np.zeros(2 * width + rungs))
        beta, gamma, bias = np.split(w, [width, 2 * width])
        return Head([[(beta[:, None] + np.outer(gamma, tilt), bias)]])

    def repeated(self, times: float) -> "PooledLogit":
        """The same, as its loss is a mean over rows."""
        return self


@dataclass(frozen=True)
class Cure:
    """A mixture-cure model (Farewell 1982): which prompts can be solved, and the budget that those need.

    In survival analysis the "cured" never have the event, however long they are watched. Here the event is a right
    answer and time is the budget: pi(x) is the chance that a prompt is solvable, and sigmoid(a_b + eta.x) the chance
    that rung b is long enough for a solvable one.
    """

    penalty: float

    def fit(self, x: Matrix, y: Matrix) -> Head:
        """Minimise the penalised log-loss; see ModelFamily."""
        width, rungs = x.shape[1], y.shape[1]

        def parts(w: Matrix) -> tuple[Matrix, Matrix, float, Matrix]:
            # Steps between the biases are exponentials, so a_b rises whatever the weights are: a solvable prompt is
            # never less likely to be solved with more budget.
            solvable, eta, (offset, first, *steps) = w[:width], w[width : 2 * width], w[2 * width :]
            return solvable, eta, offset, first + np.concatenate([[0.0], np.cumsum(np.exp(steps))])

        def loss(w: Matrix) -> tuple[float, Matrix]:
            solvable, eta, offset, bias = parts(w)
            pi, rate = expit(x @ solvable + offset)[:, None], expit((x @ eta)[:, None] + bias)
            p = np.clip(pi * rate, 1e-9, 1 - 1e-9)
            # d loss / d p = (p - y) / (p (1 - p)); the p cancels against d p / d logit = p (1 - pi) or p (1 - rate).
            gap = (p - y) / (1 - p) / y.size
            of_pi, of_rate = (gap * (1 - pi)).sum(axis=1), gap * (1 - rate)
            of_bias = of_rate.sum(axis=0)
            # A step raises every later bias, so its slope sums theirs; exp is its own derivative.
            of_steps = np.cumsum(of_bias[::-1])[::-1][1:] * np.exp(w[2 * width + 2 :])
            slopes = np.concatenate([x.T @ of_pi, x.T @ of_rate.sum(axis=1)]) + self.penalty * w[: 2 * width]
            value = log_loss(y, p) + self.penalty / 2 * float(w[: 2 * width] @ w[: 2 * width])
            return value, np.concatenate([slopes, [of_pi.sum(), of_bias.sum()], of_steps])

        # Most prompts solvable (sigmoid(2) = .88) and chances that rise gently: a start on neither flat end.
        start = np.concatenate([np.zeros(2 * width), [2.0, -1.0], np.full(rungs - 1, -1.0)])
        solvable, eta, offset, bias = parts(_minimum(loss, start))
        weights = np.column_stack([solvable, np.repeat(eta[:, None], rungs, axis=1)])
        return Head([[(weights, np.concatenate([[offset], bias]))]], cured=True)

    def repeated(self, times: float) -> "Cure":
        """The same, as its loss is a mean over rows."""
        return self


def copies(x: Matrix, y: Matrix) -> tuple[Matrix, NDArray[np.int_]]:
    """Rows repeated so that 0/1 labels average to the fractional `y` [prompts, rungs], to within 1 / MOST_COPIES."""
    copies = MOST_COPIES if ((y > 0) & (y < 1)).any() else 1
    cuts = (np.arange(copies) + 0.5) / copies
    labels = (y[:, None, :] > cuts[None, :, None]).reshape(-1, y.shape[1]).astype(int)
    return np.repeat(x, copies, axis=0), labels


def log_loss(y: Matrix, p: Matrix) -> float:
    """Cross-entropy of predictions `p` against labels `y`, 0..1, the mean over all cells; fractions are allowed."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def _minimum(loss: Callable[[Any], tuple[float, Any]], start: Matrix) -> Matrix:
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x)
