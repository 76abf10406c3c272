"""The gate: what a version must have shown before it may reach a stage that is served."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

_BUDGETS = 3.0  # a detector without labels may flag up to this many times its false-alarm budget


@dataclass(frozen=True)
class Comparison:
    """One line of a verdict: what was measured on the test period, beside what it must beat.

    Attributes
    ----------
    metric, baseline : str
        Names of both, as logged.
    value, bound : float
        Both figures; NaN where the run has none.
    passed : bool
        True if `value` is on the right side of `bound`; never with a NaN.
    """

    metric: str
    value: float
    baseline: str
    bound: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What the gate found: the comparisons made, and why a version is refused (empty if it is not)."""

    comparisons: tuple[Comparison, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if nothing speaks against the version."""
        return not self.reasons

    def __add__(self, other: Verdict) -> Verdict:
        """Return both verdicts as one: it passes if both do."""
        return Verdict(self.comparisons + other.comparisons, self.reasons + other.reasons)


def judge(model: str, version: ModelVersion) -> Verdict:
    """Return what the gate says about `version`: policy, state of the run and logged evaluation."""
    policy = _POLICIES.get(model)
    if policy is None:
        return Verdict(reasons=(f"no gate is known for it (known: {', '.join(_POLICIES)})",))
    if not version.run_id:
        return Verdict(reasons=("it belongs to no run, so there is no evaluation",))
    try:
        run = mlflow.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Verdict(reasons=(f"its run {version.run_id} does not exist any more",))
    verdict = policy.judge(run.data.metrics)
    if run.info.status != "FINISHED":
        return Verdict(verdict.comparisons, (f"its run is {run.info.status}, not FINISHED", *verdict.reasons))
    return verdict


def about(model: str) -> str | None:
    """Return the page that a registered name of the product gets; None for a name of the user's own."""
    return _POLICIES[model].about if model in _POLICIES else None


def _judge_load(metrics: Mapping[str, float]) -> Verdict:
    return _verdict(metrics, "test_mae", "naive_mae", lower_is_better=True)


def _judge_anomaly(metrics: Mapping[str, float]) -> Verdict:
    """Hold the detector against median/MAD where labels exist, else against its false-alarm budget."""
    if "test_average_precision" in metrics:
        return _verdict(metrics, "test_average_precision", "baseline_average_precision", lower_is_better=False)
    allowed = {**metrics, "3 x false_alarm_rate": _BUDGETS * metrics.get("false_alarm_rate", math.nan)}
    return _verdict(allowed, "test_flagged_share", "3 x false_alarm_rate", lower_is_better=True, equal_passes=True)


def _verdict(
    metrics: Mapping[str, float], name: str, baseline: str, *, lower_is_better: bool, equal_passes: bool = False
) -> Verdict:
    value, bound = metrics.get(name, math.nan), metrics.get(baseline, math.nan)
    better = value < bound if lower_is_better else value > bound
    passed = better or (equal_passes and value == bound)
    comparison = (Comparison(name, value, baseline, bound, passed),)
    if math.isnan(value) or math.isnan(bound):
        missing = [entry for entry, figure in ((name, value), (baseline, bound)) if math.isnan(figure)]
        return Verdict(comparison, (f"its run has no usable {' and no usable '.join(missing)}",))
    if not passed:
        side = "below" if lower_is_better else "above"
        return Verdict(comparison, (f"{name} {value:.4g} is not {side} {baseline} {bound:.4g}",))
    return Verdict(comparison)


@dataclass(frozen=True)
class _Policy:
    """What the product knows about a registered name: its page in the registry and its gate."""

    about: str
    judge: Callable[[Mapping[str, float]], Verdict]


_SERVE = (
    "Serve it: `mlflow models serve -m models:/{name}/Production`. "
    "Promote a version: `mlflow run . -e promote -P model={name}`."
)

_POLICIES = {
    LOAD_MODEL: _Policy(
        "**Hourly load forecasts** per sensor for the next 1 to 168 hours, with intervals.\n\n"
        "Send rows of hourly load, or a `sensor_id` alone; get a row per sensor and hour. A version is promoted if its "
        "`test_mae` is below the seasonal naive's (`naive_mae`).\n\n" + _SERVE.format(name=LOAD_MODEL),
        _judge_load,
    ),
    ANOMALY_MODEL: _Policy(
        "**Readings that are wrong or strange**, with a score, a p-value and a reason.\n\n"
        "Send readings; get a row for each. A version is promoted if it ranks labelled faults better than median/MAD "
        "by sensor and hour, or, without labels, if it keeps to three times its false-alarm budget.\n\n"
        + _SERVE.format(name=ANOMALY_MODEL),
        _judge_anomaly,
    ),
}
