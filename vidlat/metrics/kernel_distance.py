"""The kernel distance (KID) of two sets of features: a squared maximum mean discrepancy without bias."""

from __future__ import annotations

from vidlat.metrics.features import Array, Features, PairMean


class KernelDistance:
    """The squared maximum mean discrepancy with the kernel (x . y / D + 1)^3, for weights of the items.

    Binkowski et al. 2018, arXiv 1801.01401. A U-statistic, unbiased for sets of any size and so often
    below 0 for equal distributions. Only pairs of different groups count: the clips of one subject resemble
    each other, and their pairs would raise the distance of any two sets of subjects.
    """

    def __init__(self, one: Features, other: Features) -> None:
        self._within_one, self._within_other, self._between = (
            PairMean(_kernel(first.values, second.values), first, second)
            for first, second in ((one, one), (other, other), (one, other))
        )

    def __call__(self, weights_one: Array, weights_other: Array) -> Array:
        """(R,) of weights (R, N) and (R, M); NaN where a set has fewer than two groups of positive weight."""
        return (
            self._within_one(weights_one, weights_one)
            + self._within_other(weights_other, weights_other)
            - 2 * self._between(weights_one, weights_other)
        )


class KernelExcess:
    """How much farther one set is from a reference than another set is, by the kernel distance, for weights.

    What both distances share, the spread of the reference, cancels.
    """

    def __init__(self, one: Features, other: Features, reference: Features) -> None:
        self._one, self._other = KernelDistance(one, reference), KernelDistance(other, reference)

    def __call__(self, weights_one: Array, weights_other: Array, weights_reference: Array) -> Array:
        """(R,) of weights (R, N), (R, M) and (R, P); NaN where a set has fewer than two groups of weight."""
        return self._one(weights_one, weights_reference) - self._other(weights_other, weights_reference)


def _kernel(one: Array, other: Array) -> Array:
    kernel: Array = (one @ other.T / one.shape[1] + 1) ** 3
    return kernel
