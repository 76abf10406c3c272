"""Events, their metrics and NAB's score, against hand-computed numbers and a slow reference of the published rule."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation import events
from smartgrid_pyfunc.schema import InputError


def _readings(sensors: str, step: str = "1h") -> pd.DataFrame:
    """A row per letter of `sensors`, each sensor's clock running by itself."""
    frame = pd.DataFrame({"sensor_id": list(sensors)})
    order = frame.groupby("sensor_id").cumcount()
    return frame.assign(timestamp=pd.Timestamp("2026-01-01", tz="UTC") + order * pd.Timedelta(step))


def _hour(number: int) -> pd.Timestamp:
    return pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(hours=number)


# ------------------------------------------------------------------------------------------------------------- events


def test_consecutive_flags_are_one_event_with_its_peak_and_kind():
    table = events.group_events(
        _readings("aaaaaa"),
        [0, 1, 1, 1, 0, 1],
        scores=[9, 2, 5, 3, 9, 1],
        kinds=["", "low", "spike", None, "", ""],
    )
    assert table[["start", "end", "peak"]].to_numpy().tolist() == [
        [_hour(1), _hour(3), _hour(2)],
        [_hour(5), _hour(5), _hour(5)],
    ]
    assert table["kind"].tolist() == ["spike", ""]
    assert table["score"].tolist() == [5, 1]
    assert table["readings"].tolist() == [3, 1]


def test_the_kind_is_the_first_known_one_where_the_peak_has_none():
    table = events.group_events(_readings("aaa"), [1, 1, 1], scores=[2, 9, 1], kinds=["stuck", "", "spike"])
    assert table["kind"].tolist() == ["stuck"]


def test_events_end_where_a_sensor_ends():
    table = events.group_events(_readings("aabb"), [0, 1, 1, 0])
    assert table["sensor_id"].tolist() == ["a", "b"]


def test_events_do_not_depend_on_row_order():
    rng = np.random.default_rng(3)
    readings, flags, scores = _readings("ab" * 100), rng.random(200) < 0.4, rng.random(200)
    order = rng.permutation(200)
    straight = events.group_events(readings, flags, scores=scores, join=1)
    pd.testing.assert_frame_equal(
        straight, events.group_events(readings.iloc[order], flags[order], scores=scores[order], join=1)
    )


@pytest.mark.parametrize(("join", "expected"), [(0, 3), (1, 2), (2, 1)])
def test_short_pauses_are_joined(join: int, expected: int):
    assert len(events.group_events(_readings("aaaaaaa"), [1, 0, 1, 1, 0, 0, 1], join=join)) == expected


def test_a_reading_without_score_is_the_peak_only_if_there_is_no_other():
    readings = _readings("aabb")
    table = events.group_events(readings, [1, 1, 1, 1], scores=[np.nan, 3, np.nan, np.nan])
    assert table["peak"].tolist() == [_hour(1), _hour(0)]
    assert table["score"].tolist()[0] == 3
    assert math.isnan(table["score"].tolist()[1])


def test_without_flags_there_is_no_event():
    table = events.group_events(_readings("aab"), [0, np.nan, 0])
    assert table.empty
    assert list(table.columns) == ["sensor_id", "start", "end", "peak", "score", "kind", "readings"]


def test_flags_of_another_length_are_refused():
    with pytest.raises(InputError, match="as many as readings"):
        events.group_events(_readings("aab"), [1, 0])


def test_found_events_tell_their_delay_and_share():
    readings = _readings("aaaaaaaabb", step="30min")
    table = events.match_events(
        readings,
        labels=[0, 1, 1, 1, 1, 0, 1, 0, 1, 1],
        flags=[1, 0, 0, 1, 1, 1, 0, 0, 1, 0],
        kinds=["", *["drift"] * 4, "", "spike", "", "stuck", "stuck"],
    )
    assert table["kind"].tolist() == ["drift", "spike", "stuck"]
    assert table["found"].tolist() == [True, False, True]
    assert table["share"].tolist() == [0.5, 0.0, 0.5]
    np.testing.assert_array_equal(table["delay"].to_numpy(), [1.0, np.nan, 0.0])


def test_summary_by_hand():
    readings = _readings("a" * 168)
    labels, flags = np.zeros(168), np.zeros(168)
    labels[10:14], labels[50], flags[12], flags[100:103] = 1, 1, 1, 1
    summary = events.summarise_events(readings, labels, flags)
    assert summary["event_recall"] == 0.5
    assert summary["median_delay_hours"] == 2.0
    assert summary["false_alarms_per_sensor_week"] == pytest.approx(1.0)


def test_summary_without_events_is_undefined():
    summary = events.summarise_events(_readings("aaa"), [0, 0, 0], [0, 0, 0])
    assert math.isnan(summary["event_recall"])
    assert math.isnan(summary["median_delay_hours"])


# ---------------------------------------------------------------------------------------------------------- NAB's score


def _sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def _reference(series, inside, flags, scored, profile) -> float:
    """The published rule, reading by reading, for given flags."""
    total, count = 0.0, 0
    for name in dict.fromkeys(series):
        rows = [i for i, s in enumerate(series) if s == name]
        windows, open_ = [], False
        for place, i in enumerate(rows):
            if inside[i] and not open_:
                windows.append([place, place])
            elif inside[i]:
                windows[-1][1] = place
            open_ = bool(inside[i])
        for left, right in windows:
            places = [p for p in range(left, right + 1) if scored[rows[p]]]
            if not places:
                continue
            count += 1
            hits = [p for p in places if flags[rows[p]]]
            if hits:
                width = right - left + 1
                total += profile.true_positive * _sigmoid(-(right - hits[0] + 1) / width) / _sigmoid(-1.0)
            else:
                total -= profile.false_negative
        for place, i in enumerate(rows):
            if not (flags[i] and scored[i]) or inside[i]:
                continue
            before = [w for w in windows if w[1] < place]
            position = (place - before[-1][1]) / max(before[-1][1] - before[-1][0], 1) if before else 3.0
            total += profile.false_positive * (-1.0 if position >= 3 else _sigmoid(position))
    nothing = -profile.false_negative * count
    return 100 * (total - nothing) / (profile.true_positive * count - nothing)


def _corpus(seed: int):
    rng = np.random.default_rng(seed)
    series = np.repeat(["a", "b", "c", "d"], 60)
    inside = np.zeros(240, dtype=bool)
    for first, width in ((20, 8), (40, 10), (60 + 30, 5), (60 + 40, 1), (120 + 50, 10)):  # one ends with its series
        inside[first : first + width] = True
    scored = np.tile(np.arange(60) >= 9, 4)
    return series, inside, np.round(rng.random(240) + 0.4 * inside, 1), scored


@pytest.mark.parametrize("profile", events.NAB_PROFILES.values(), ids=events.NAB_PROFILES)
@pytest.mark.parametrize("seed", range(3))
def test_nab_agrees_with_a_slow_reference_at_every_threshold(profile: events.NabProfile, seed: int):
    series, inside, scores, scored = _corpus(seed)
    found = {}
    for threshold in np.unique(scores):
        mine = events.nab_score(series, inside, scores, scored=scored, profile=profile, threshold=threshold)
        found[threshold] = _reference(series, inside, scores >= threshold, scored, profile)
        assert mine.score == pytest.approx(found[threshold])
    best = events.nab_score(series, inside, scores, scored=scored, profile=profile)
    assert best.score == pytest.approx(max(0.0, *found.values()))
    if best.score > 0:
        assert found[best.threshold] == pytest.approx(best.score)


def test_nab_of_the_perfect_and_the_silent_detector():
    series, inside, _, scored = _corpus(0)
    first = inside & ~np.concatenate([[False], inside[:-1]])
    for profile in events.NAB_PROFILES.values():
        options = {"scored": scored, "profile": profile}
        assert events.nab_score(series, inside, first.astype(float), **options).score == pytest.approx(100.0)
        assert events.nab_score(series, inside, np.zeros(240), threshold=1.0, **options).score == 0.0


def test_nab_never_scores_readings_without_a_score_or_in_probation():
    series, inside, scores, scored = _corpus(1)
    options = {"scored": scored, "threshold": 0.7}
    loud = np.where(scored, scores, 9.0)
    assert events.nab_score(series, inside, loud, **options) == events.nab_score(series, inside, scores, **options)
    gone = np.where(np.arange(240) % 3 == 0, np.nan, scores)
    silent = np.nan_to_num(gone, nan=-1.0)
    assert events.nab_score(series, inside, gone, **options) == events.nab_score(series, inside, silent, **options)


def test_nab_without_windows_is_undefined():
    assert math.isnan(events.nab_score(["a", "a"], [0, 0], [1.0, 2.0]).score)


def test_probation_is_a_share_with_a_cap():
    assert events.probation([100, 4032, 22_695]).tolist() == [15, 604, 750]
