"""Model cards: what a person reads first on the page of a run or a registered version, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

_METRICS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    # what is shown, the model's metric, the baseline's metric, format
    LOAD_MODEL: (
        ("MAE", "test_mae", "naive_mae", ".4g"),
        ("RMSE", "test_rmse", "", ".4g"),
        ("skill over the naive", "test_skill", "", ".1%"),
        ("MASE", "test_mase", "", ".3f"),
        ("bias", "test_bias", "", ".4g"),
        ("coverage of the 90 % interval", "test_coverage", "", ".1%"),
    ),
    ANOMALY_MODEL: (
        ("average precision", "test_average_precision", "baseline_average_precision", ".3f"),
        ("ROC-AUC", "test_roc_auc", "", ".3f"),
        ("events found", "test_event_recall", "", ".1%"),
        ("readings flagged", "test_flagged_share", "false_alarm_rate", ".2%"),
    ),
}
_WHAT = {
    LOAD_MODEL: "Hourly load of every sensor for the next 1 to 168 hours, with intervals.",
    ANOMALY_MODEL: "Readings that are wrong or strange, with a score, a p-value and a reason.",
}
_BASELINE = {
    LOAD_MODEL: "better seasonal naive",
    ANOMALY_MODEL: "median/MAD by sensor and hour; budget",
}
_LIMITS = {
    LOAD_MODEL: (
        "A sensor with under 168 hours of history, or over 20 % of gaps in them, gets the seasonal naive and a reason.",
        "Holidays are known only with `country`; a temperature that is not sent is said to be missing.",
        "Intervals describe errors like those of the calibration weeks; after a change of the load they become narrow.",
    ),
    ANOMALY_MODEL: (
        "It flags what is unusual for the sensor at that hour; a right value that comes late is not flagged.",
        "A sensor it has not seen is judged by its type, which says less.",
        "The share of flags on ordinary readings is held to the budget, not that of every single sensor.",
    ),
}


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes
    ----------
    data : str
        The ``data`` parameter, without secrets.
    sensors : int
        Number of sensors.
    first, last : str
        First and last day of the data.
    settings : Mapping
        Parameters worth reading, by name.
    """

    data: str
    sensors: int
    first: str
    last: str
    settings: Mapping[str, object]


def write_card(model: str, origin: Origin, metrics: Mapping[str, float], notes: Sequence[str] = ()) -> str:
    """Return the card of a version: purpose, data, figures beside the baseline, limits and what to type.

    Parameters
    ----------
    model : str
        Registered name of the product.
    origin : Origin
    metrics : Mapping
        As logged; those that are missing are left out.
    notes : sequence of str
        Further limits of this version.
    """
    settings = ", ".join(f"{name} = {value}" for name, value in origin.settings.items() if value not in ("", None))
    return "\n".join(
        [
            f"**{_WHAT[model]}**",
            "",
            f"Data: {origin.sensors:,} sensors, {origin.first} to {origin.last} (`{origin.data}`)."
            + (f" Settings: {settings}." if settings else ""),
            "",
            *_table(model, metrics),
            "",
            "Limits",
            "",
            *(f"- {limit}" for limit in (*_LIMITS[model], *notes)),
            "",
            f"Promote: `mlflow run . -e promote -P model={model}` · "
            f"serve: `mlflow models serve -m models:/{model}/Production` · "
            "repeat: the tag `smartgrid.reproduce` of the run.",
        ]
    )


def _table(model: str, metrics: Mapping[str, float]) -> list[str]:
    rows = [f"| on days not seen in training | this model | {_BASELINE[model]} |", "|---|---:|---:|"]
    for shown, name, baseline, form in _METRICS[model]:
        if name in metrics:
            against = _shown(metrics[baseline], form) if baseline in metrics else ""
            rows.append(f"| {shown} | {_shown(metrics[name], form)} | {against} |")
    return rows


def _shown(value: float, form: str) -> str:
    """Return a figure as people write it: 15,510 and not 1.551e+04."""
    return f"{value:,.0f}" if form == ".4g" and abs(value) >= 1000 else format(value, form)
