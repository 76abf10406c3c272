"""Model cards say what is known and leave out what is not."""

from __future__ import annotations

import pytest

from smartgrid_pyfunc.lifecycle.model_card import Origin, write_card
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

_ORIGIN = Origin("meters/*.parquet", 1200, "2025-01-01", "2025-12-31", {"timezone": "Europe/Berlin", "country": None})


def test_figures_stand_beside_the_baseline_and_missing_ones_are_left_out():
    card = write_card(LOAD_MODEL, _ORIGIN, {"test_mae": 187.44, "naive_mae": 316.92, "test_skill": 0.4086}, ["A note."])
    assert "| MAE | 187.4 | 316.9 |" in card
    assert "| skill over the naive | 40.9% |  |" in card
    assert "RMSE" not in card and "nan" not in card
    assert "1,200 sensors, 2025-01-01 to 2025-12-31 (`meters/*.parquet`). Settings: timezone = Europe/Berlin." in card
    assert "- A note." in card


@pytest.mark.parametrize("model", [LOAD_MODEL, ANOMALY_MODEL])
def test_every_card_says_purpose_limits_and_what_to_type(model):
    card = write_card(model, _ORIGIN, {})
    assert card.startswith("**") and card.count("\n- ") == 3
    assert f"mlflow run . -e promote -P model={model}" in card
    assert f"mlflow models serve -m models:/{model}/Production" in card
    assert "smartgrid.reproduce" in card
