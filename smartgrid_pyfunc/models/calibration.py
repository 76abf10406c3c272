"""From anomaly scores to p-values: the share of normal readings that score as high, by the extent of their history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.readings import ReadingContext
from smartgrid_pyfunc.models.isolation import (
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
_HEAVIER = 2.0  # times an exponential tail: normal readings may be so much stranger than the bulk of them tells


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
        extents = history_of(part, context.end[rows] - context.first[rows])
        for extent in EXTENTS:
            evidence = scorer.evidence(without_history(part, extent))
            alone = scorer.alone(scorer.features(context, off, evidence, rows), evidence)
            found = scorer.remembered(alone, first if extent >= AFTER_SOME else end, end)
            used = (extents >= extent) & (whole | (end - first >= REMEMBERED - 1))
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

    Scores are -log tail probabilities, so the tail of normal ones is about exponential; its rate comes from the median
    and the 95 % quantile. The limit is what one of twenty windows without faults would exceed.
    """
    middle, high = np.quantile(scores, [0.5, 0.95])
    scale = (high - middle) / np.log(10)
    limit = high + _HEAVIER * scale * (np.log(0.05 * len(scores)) + 3.0)
    return scores[: max(int(np.searchsorted(scores, limit, side="right")), int(np.ceil((1 - most) * len(scores))))]
