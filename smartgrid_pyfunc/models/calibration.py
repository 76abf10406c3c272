"""From anomaly scores to p-values: the share of normal readings that score as high, by the extent of their history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.readings import ReadingContext
from smartgrid_pyfunc.models.isolation import (
    AFTER_DAYS,
    AFTER_SOME,
    ALONE,
    EXTENTS,
    REMEMBERED,
    Scorer,
    history_of,
    without_history,
)

_MAX_ROWS = 40_000  # readings that are scored for each extent
_RUN = 64  # readings in a row, so that scores have what they remember
_LIGHTER = 0.6  # times an exponential tail: evidence grows more slowly beyond what training has seen


class Calibration:
    """Scores of readings that the model has not seen, sorted, for each extent of history.

    Notes
    -----
    The p-values are conformal: Laxhammar & Falkman (2014); they are uniform on readings that are exchangeable with
    those of the calibration. A reading is compared with scores made from as much history as it has itself (Mondrian:
    Vovk, Gammerman & Shafer 2005, ch. 4), so that a request without history raises no more false alarms than one with
    a week of it.
    """

    def __init__(self, scores: Mapping[int, NDArray[np.float64]]) -> None:
        self.scores = dict(scores)

    @classmethod
    def fit(
        cls,
        scorer: Scorer,
        context: ReadingContext,
        off: NDArray[np.float64],
        surprise: NDArray[np.float64],
        needed: int,
        contamination: float,
    ) -> Calibration:
        """Score training readings by out-of-sample `surprise`, (m, len(DEVIATIONS)).

        An extent that fewer than `needed` readings have is left to the next smaller one. At most the share
        `contamination` is taken as faults and left out.
        """
        rows, start = _runs(len(context))
        moved = rows - np.arange(len(rows))
        first = np.maximum(context.first[rows] - moved, start)
        end = np.maximum(context.end[rows] - moved, first)
        whole = context.end[rows] - context.first[rows] == end - first
        part, scores = surprise[rows], {}
        extents = history_of(surprise, context.end - context.first)
        for extent in EXTENTS:
            if extent == AFTER_DAYS:  # needs a week of readings, more than a run has
                fresh = scorer.fresh(context, off, scorer.evidence(surprise), extents)[rows]
            else:
                evidence = scorer.evidence(without_history(part, extent))
                fresh = scorer.alone(scorer.features(context, off, evidence, rows), evidence)
            found = scorer.remembered(fresh, first if extent >= AFTER_SOME else end, end)
            used = (extents[rows] >= extent) & (whole | (end - first >= REMEMBERED - 1))
            if used.sum() >= needed or extent == ALONE:
                scores[extent] = _without_outliers(np.sort(found[used]), contamination)
            else:
                scores[extent] = scores[extent - 1]
        return cls(scores)

    def p_value(self, score: NDArray[np.float64], extent: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the calibration's readings that are at least as strange, the reading itself counted."""
        result = np.empty(len(score))
        for each, scores in self.scores.items():
            mine, n = extent == each, len(scores)
            result[mine] = (n - np.searchsorted(scores, score[mine], side="left") + 1) / (n + 1)
        return result


def _runs(m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows, all or runs evenly spread over them, and where each one's run starts among them."""
    if m <= _MAX_ROWS:
        return np.arange(m), np.zeros(m, dtype=np.int64)
    n = _MAX_ROWS // _RUN
    begin = np.linspace(0, m - _RUN, n).astype(np.int64)
    return (begin[:, None] + np.arange(_RUN)).ravel(), np.repeat(_RUN * np.arange(n), _RUN)


def _without_outliers(scores: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Drop from sorted `scores` those that the tail of the others cannot explain: faults in the training readings.

    Scores are -log tail probabilities: the tail of normal ones is exponential or, since evidence beyond the training
    readings grows more slowly, lighter. Its rate comes from the median and the 95 % quantile; the limit is about where
    the largest score would lie if the tail were so much shorter.
    """
    middle, high = np.quantile(scores, [0.5, 0.95])
    limit = high + _LIGHTER * (high - middle) / np.log(10) * np.log(0.05 * len(scores))
    return scores[: max(int(np.searchsorted(scores, limit, side="right")), int(np.ceil((1 - most) * len(scores))))]
