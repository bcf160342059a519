"""The nearest row of a big set to each of some rows, while the set passes by in blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**21
"""Pairs of a query and a row that are compared at once: a search takes 64 MB beside what it is given."""

ROUNDING = 2.0**-23
"""Twice the unit roundoff of float32, whose sum of n products is wrong by n unit roundoffs at most."""


class NearestRows:
    """The nearest row, by Euclidean distance, to each query row.

    queries: (Q, D), finite; on a GPU the search runs there. Products of all pairs are computed in float32.
    Every row that may be the nearest, after the worst that rounding can do to a product, is compared by its
    distance in float64, so that rounding never puts another row in its place.

    squared: (Q,) float64, the squared distance to the nearest row so far, infinite before the first. index:
    (Q,) int64, the number of that row, the first one of equally near rows; -1 before the first.
    """

    def __init__(self, queries: Tensor) -> None:
        self._queries = queries.float()
        self._norms = _squared_norms(self._queries)
        self._num_rows = 0
        self.squared = torch.full_like(self._norms, torch.inf)
        self.index = torch.full_like(self._norms, -1, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Compare the queries with the next rows (N, D) of the set, finite."""
        rows = rows.to(self._queries)
        num_queries = max(1, min(len(self._queries), math.isqrt(PAIRS_AT_ONCE)))
        num_rows = PAIRS_AT_ONCE // num_queries
        for first in range(0, len(rows), num_rows):
            for query in range(0, len(self._queries), num_queries):
                self._compare(slice(query, query + num_queries), rows[first : first + num_rows])
            self._num_rows += len(rows[first : first + num_rows])

    def _compare(self, part: slice, rows: Tensor) -> None:
        queries, row_norms = self._queries[part], _squared_norms(rows)
        # |r|^2 - 2 q.r, the squared distance but for |q|^2, where |q.r| <= (|q|^2 + |r|^2) / 2.
        scores = torch.addmm(row_norms.float(), queries, rows.T, alpha=-2)
        bounds = (queries.shape[1] + 4) * ROUNDING * (self._norms[part] + row_norms.max())
        nearest = torch.minimum(self.squared[part] - self._norms[part], scores.amin(1) + bounds)
        query, row = (scores <= (nearest + bounds).float()[:, None]).nonzero(as_tuple=True)
        length = max(1, PAIRS_AT_ONCE // queries.shape[1])
        for first in range(0, len(query), length):
            compared = query[first : first + length], row[first : first + length]
            differences = queries[compared[0]].double() - rows[compared[1]].double()
            squared = torch.linalg.vector_norm(differences, dim=1).square()
            self._keep_nearest(part.start + compared[0], squared, self._num_rows + compared[1])

    def _keep_nearest(self, query: Tensor, squared: Tensor, index: Tensor) -> None:
        """Take over what is nearer than all before; each (M,)."""
        best = self.squared.scatter_reduce(0, query, squared, "amin")
        is_best = squared == best[query]
        first = torch.full_like(self.index, torch.iinfo(torch.int64).max)
        first = first.scatter_reduce(0, query[is_best], index[is_best], "amin")
        self.index = torch.where(best < self.squared, first, self.index)
        self.squared = best


def _squared_norms(rows: Tensor) -> Tensor:
    """(N,) float64."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.square()
