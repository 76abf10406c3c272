"""Odd requests and what becomes of them: one table for the tests, direct and through a gateway, and for the docs.

    python -m tests.e2e.odd_requests > docs/odd-requests.md

A caller names an `Endpoint` (address, path of each model, headers) and a stored sensor, and hands both to `verify`.
"""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

LOAD, ANOMALY = "LoadForecastingModel", "AnomalyDetectionModel"
#: Rows that the tested server takes (``SMARTGRID_MAX_ROWS``): as many as two for each of 10,000 sensors.
MAX_ROWS = 20_000
#: In every refused body where no sentence needs it; an answer that holds it has repeated the request.
PRIVATE = "private-6f1c9a"
STORED = "{stored}"
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"

_START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
_TRACES = re.compile(r'Traceback|File "|\.py\b|site-packages|/tmp/|/usr/|/opt/|/home/|\bline \d+, in ')
_50_MB = 50_000_000

Rows = list[dict[str, Any]]
Check = Callable[[Rows], None]


@dataclass(frozen=True)
class Odd:
    """One line of the table.

    Attributes
    ----------
    name : str
        What is odd about the request, in a few words; unique.
    model : str
        Registered name of the model asked.
    body : bytes or callable
        As sent; a callable makes a body that is too large to keep. ``{stored}`` stands for a stored sensor's name.
    status : int
        Expected from `mlflow models serve` itself.
    sentence : str
        Of an error: the whole message, or the whole text of an answer that is no JSON. Of an answer: what is checked.
    check : callable, optional
        Raises unless the rows of an answer hold the right values.
    same_as : bytes, optional
        The plain request that must be answered equally.
    content_type : str, optional
        None sends no such header.
    gateway_status : int, optional
        Expected through a gateway where that answers another status.
    stall : bool
        The client sends half of the body and waits (`Endpoint.stall`) before it sends the rest.
    """

    name: str
    model: str
    body: bytes | Callable[[], bytes]
    status: int
    sentence: str
    check: Check | None = None
    same_as: bytes | None = None
    content_type: str | None = JSON
    gateway_status: int | None = None
    stall: bool = False

    def sent(self, stored: str) -> bytes:
        """Return the body to send, `stored` being the name of a sensor whose history the model has."""
        return _naming(self.body() if callable(self.body) else self.body, stored)


def _naming(body: bytes, stored: str) -> bytes:
    return body.replace(STORED.encode(), stored.encode())


@dataclass(frozen=True)
class Endpoint:
    """Where models are asked: `mlflow models serve` itself or a gateway in front of it.

    Attributes
    ----------
    base : str
        ``http://127.0.0.1:5101``; a mapping gives one per model.
    paths : mapping
        Model → path.
    headers : mapping
        Sent with every request, e.g. ``Authorization``.
    stall : float
        How long a slow client waits [s]; more than the gateway's time-out for bodies.
    """

    base: str | Mapping[str, str]
    paths: Mapping[str, str] = field(default_factory=lambda: {LOAD: "/invocations", ANOMALY: "/invocations"})
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: float = 2.0

    def post(
        self, model: str, body: bytes, content_type: str | None = JSON, *, slowly: bool = False
    ) -> tuple[int, str]:
        """Send one request on a connection of its own; return the status and the text of the answer."""
        address = urllib.parse.urlsplit(self.base if isinstance(self.base, str) else self.base[model])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=180)
        kind = {} if content_type is None else {"Content-Type": content_type}
        try:
            connection.putrequest("POST", self.paths[model])
            for name, value in ({"Content-Length": str(len(body))} | kind | dict(self.headers)).items():
                connection.putheader(name, value)
            connection.endheaders()
            self._send(connection, body, slowly)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: bytes, slowly: bool) -> None:
        half = len(body) // 2 if slowly else 0
        try:
            if slowly:
                connection.send(body[:half])
                time.sleep(self.stall)
            connection.send(body[half:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent; the answer stands in the socket


def verify(odd: Odd, endpoint: Endpoint, stored: str, *, gateway: bool = False) -> None:
    """Send the request and raise AssertionError unless the answer is what the table says."""
    status, text = endpoint.post(odd.model, odd.sent(stored), odd.content_type, slowly=odd.stall)
    expected = odd.gateway_status if gateway and odd.gateway_status is not None else odd.status
    assert status == expected, (odd.name, status, text[:500])
    assert not _TRACES.search(text), (odd.name, text[:500])
    assert PRIVATE not in text, (odd.name, text[:500])
    if gateway and odd.gateway_status is not None:
        return  # in the gateway's words
    if status != 200:
        assert _message(text) == odd.sentence, (odd.name, text[:500])
        return
    rows = strict_json(text)["predictions"]
    if odd.check:
        odd.check(rows)
    if odd.same_as is not None:
        _, plain = endpoint.post(odd.model, _naming(odd.same_as, stored))
        assert rows == strict_json(plain)["predictions"], odd.name


def _message(text: str) -> str:
    return str(json.loads(text)["message"]) if text.startswith("{") else text


def strict_json(text: str) -> Any:
    """Parse JSON as its standard has it: without NaN and Infinity."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


# ----------------------------------------------------------------------------------------------- making requests


def records(rows: Iterable[Mapping[str, Any]], **params: Any) -> bytes:
    """Return a request in JSON."""
    table = {"dataframe_records": list(rows)} | ({"params": params} if params else {})
    return json.dumps(table, ensure_ascii=False).encode()


def hours(n: int = 336, sensor: str = "odd meter", start: datetime = _START, **more: Any) -> Rows:
    """Return `n` hours of load that repeats every day: 100 plus the hour of the day in UTC."""
    times = [start + timedelta(hours=h) for h in range(n)]
    return [{"sensor_id": sensor, "timestamp": _text(t), "avg_value": 100.0 + t.hour} | more for t in times]


def readings(values: Iterable[Any], sensor: str = "odd meter", start: datetime = _START, **more: Any) -> Rows:
    """Return readings of a power meter, one an hour."""
    base = {"sensor_id": sensor, "sensor_type": "power"}
    rows = [base | {"timestamp": _text(start + timedelta(hours=h)), "value": v} for h, v in enumerate(values)]
    return [row | more for row in rows]


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _private(rows: Rows) -> Rows:
    return [*rows, {**rows[-1], "sensor_id": PRIVATE}]


def _at_offsets(rows: Rows) -> Rows:
    zones = [timezone(timedelta(minutes=m)) for m in (0, 330, -480)]
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    return [
        row | {"timestamp": t.astimezone(zones[i % 3]).isoformat()}
        for i, (row, t) in enumerate(zip(rows, times, strict=True))
    ]


def _naive(rows: Rows) -> Rows:
    return [row | {"timestamp": row["timestamp"].removesuffix("Z")} for row in rows]


def _csv(rows: Rows) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def _parquet(rows: Rows) -> Callable[[], bytes]:
    def make() -> bytes:
        import pandas as pd

        frame = pd.DataFrame(rows).astype({"timestamp": "datetime64[us, UTC]"})
        return frame.to_parquet(index=False)

    return make


def _large() -> bytes:
    row = json.dumps(hours(1)[0])
    return f'{{"dataframe_records": [{", ".join([row] * (_50_MB // (len(row) + 2) + 1))}]}}'.encode()


def _many_sensors() -> bytes:
    """Two hours each: the one that an hour ahead repeats after a day, and the last one."""
    pairs = ([hours(24, f"s{i:05}")[k] | {"avg_value": float(i)} for k in (0, 23)] for i in range(MAX_ROWS // 2))
    return records((row for pair in pairs for row in pair), hours_ahead=1, use_ml=False)


# ----------------------------------------------------------------------------------------------- checking answers


def _daily(n: int = 24, sensor: str = "odd meter", model: str | None = None) -> Check:
    """The naive repeats the day: 100 plus the target's hour of the day, for each of `n` hours after the origin."""

    def check(rows: Rows) -> None:
        rows = [row for row in rows if row["sensor_id"] == sensor]
        assert [row["horizon"] for row in rows] == list(range(1, n + 1))
        for row in rows:
            target = datetime.fromisoformat(row["timestamp"])
            assert target - datetime.fromisoformat(row["origin"]) == timedelta(hours=row["horizon"])
            assert row["predicted_load"] == 100.0 + target.hour, row
            assert row["lower"] <= row["predicted_load"] <= row["upper"], row
            assert model in (None, row["model"]), row

    return check


def _origin(time: str) -> Check:
    def check(rows: Rows) -> None:
        assert {row["origin"] for row in rows} == {time}
        _daily()(rows)

    return check


def _one_row(rows: Rows) -> None:
    known = [row for row in rows if row["predicted_load"] is not None]
    assert [(row["horizon"], row["predicted_load"]) for row in known] == [(24, 100.0)]
    assert all(row["reason"] for row in rows)
    assert all(row["lower"] is None and row["upper"] is None for row in rows if row not in known)


def _bad_among_good(rows: Rows) -> None:
    bad = [row for row in rows if row["sensor_id"] == "nobody"]
    assert {(row["predicted_load"], row["reason"]) for row in bad} == {
        (None, "the sensor is unknown and no history was sent")
    }
    _daily()(rows)


def _ten_thousand(rows: Rows) -> None:
    assert [row["sensor_id"] for row in rows] == [f"s{i:05}" for i in range(MAX_ROWS // 2)]
    assert [row["predicted_load"] for row in rows] == [float(i) for i in range(MAX_ROWS // 2)]


def _stored(n: int) -> Check:
    def check(rows: Rows) -> None:
        assert [row["horizon"] for row in rows] == list(range(1, n + 1))
        assert all(isinstance(row["predicted_load"], float) for row in rows)

    return check


def _in_order(n: int) -> Check:
    def check(rows: Rows) -> None:
        assert len(rows) == n
        assert all(0 < row["p_value"] <= 1 for row in rows)

    return check


def _backwards(rows: Rows) -> None:
    _in_order(48)(rows)
    assert [row["timestamp"] for row in rows] == [row["timestamp"] for row in readings(_SINE)[::-1]]


def _no_value(rows: Rows) -> None:
    assert rows[1]["is_anomaly"] is True
    assert (rows[1]["reason"], rows[1]["anomaly_score"], rows[1]["p_value"]) == ("no value", None, None)
    assert rows[0]["anomaly_score"] is not None
    assert rows[2]["anomaly_score"] is not None


def _alike(rows: Rows) -> None:
    assert rows[:48] == rows[48:]


def _conflict(rows: Rows) -> None:
    assert [row["timestamp"] for row in rows[-2:]] == [rows[-1]["timestamp"]] * 2
    assert all("another value was sent for the same time" in row["reason"] for row in rows[-2:])


def _absurd_flagged(rows: Rows) -> None:
    assert rows[-1]["is_anomaly"] is True
    assert rows[-1]["reason"]
    assert rows[-1]["profile"] in ("sensor_type", "global")


# ----------------------------------------------------------------------------------------------- the table

_PLAIN = hours()
_NAIVE = {"use_ml": False}
_SINE = [100.0 + h % 24 for h in range(48)]
_BARE = [{"sensor_id": STORED}]
_TABLE_SENTENCE = (
    "a request must hold a table under dataframe_records, dataframe_split, inputs or instances; "
    "send the rows as a list of objects, or columns and data."
)
_KEYS_SENTENCE = (
    "a request must be a JSON object with exactly one of dataframe_records, dataframe_split, inputs or instances; "
    'send {"dataframe_records": [{"sensor_id": …}]}.'
)
_NUMBER = "send numbers without quotes and leave unknown values empty."
_ISO = "write times like 2026-03-01T12:00:00Z or with an offset such as +01:00."
_COLUMN = "add the column or rename the one that holds it."


def _changed(rows: Rows, i: int, **cells: Any) -> Rows:
    return [row | cells if j == i else row for j, row in enumerate(rows)]


def _without(rows: Rows, name: str) -> Rows:
    return [{n: v for n, v in row.items() if n != name} for row in rows]


def _refused(name: str, model: str, body: bytes | Callable[[], bytes], sentence: str, **more: Any) -> Odd:
    return Odd(name, model, body, more.pop("status", 400), sentence, **more)


REFUSED = (
    _refused("malformed JSON", LOAD, f'{{"dataframe_records": [{{"sensor_id": "{PRIVATE}"'.encode(),
             "a request must be valid JSON (line 1, column 54); check quotes and commas."),
    _refused("not UTF-8", LOAD, b'{"dataframe_records": [{"sensor_id": "Z\xe4hler"}]}',
             "a request must be UTF-8 text (byte 40); encode it as UTF-8."),
    _refused("empty body", LOAD, b"", "a request must be valid JSON (line 1, column 1); check quotes and commas."),
    _refused("a list instead of an object", LOAD, json.dumps([PRIVATE]).encode(), _KEYS_SENTENCE),
    _refused("wrong top key", LOAD, json.dumps({"rows": [{"sensor_id": PRIVATE}]}).encode(), _KEYS_SENTENCE),
    _refused("two top keys", LOAD, json.dumps({"dataframe_records": _private(_BARE), "inputs": []}).encode(),
             _KEYS_SENTENCE),
    _refused("a table that is none", LOAD, json.dumps({"dataframe_split": PRIVATE}).encode(), _TABLE_SENTENCE),
    _refused("no rows", LOAD, records([]),
             "a request must hold at least one row; send a row for each hour or reading."),
    _refused("no rows of readings", ANOMALY, records([]),
             "a request must hold at least one row; send a row for each hour or reading."),
    _refused("too many rows", LOAD, lambda: records([{"sensor_id": PRIVATE}] * (MAX_ROWS + 1)),
             f"a request may hold at most {MAX_ROWS} rows: found {MAX_ROWS + 1}; send it in parts."),
    _refused("a body of 50 MB", LOAD, _large,
             f"a request may hold at most {MAX_ROWS} rows: found {_50_MB // (len(json.dumps(hours(1)[0])) + 2) + 1}; "
             "send it in parts.", gateway_status=413),
    _refused("column missing", LOAD, records(_without(_private(_PLAIN), "avg_value")),
             f"column avg_value is required: found sensor_id, timestamp; {_COLUMN}"),
    _refused("no column sensor_id", LOAD, records(_without(_PLAIN, "sensor_id")),
             f"column sensor_id is required: found timestamp, avg_value; {_COLUMN}"),
    _refused("column of readings missing", ANOMALY, records(_without(_private(readings(_SINE)), "value")),
             f"column value is required: found sensor_id, sensor_type, timestamp; {_COLUMN}"),
    _refused("text in a number", LOAD, records(_private(_changed(_PLAIN, 4, avg_value="12,5"))),
             f"avg_value must be a number (column avg_value, row 5): found '12,5'; {_NUMBER}"),
    _refused("a number in quotes", ANOMALY, records(_private(_changed(readings(_SINE), 2, value="100.0"))),
             f"value must be a number (column value, row 3): found '100.0'; {_NUMBER}"),
    _refused("no sensor", LOAD, records(_private(_changed(_PLAIN, 1, sensor_id=None))),
             "sensor_id must be text (column sensor_id, row 2): found an empty value; name the sensor."),
    _refused("a value without its hour", LOAD, records(_private(_changed(_PLAIN, 1, timestamp=None))),
             "timestamp is required where avg_value is given (column timestamp, row 2): found an empty value; "
             "send the start of the hour in UTC."),
    _refused("infinity", LOAD, records(_private(_changed(_PLAIN, 7, avg_value=float("inf")))),
             "avg_value must be finite (column avg_value, row 8): found inf; leave unknown values empty."),
    _refused("1e999", ANOMALY, records(_private(readings([1.0, 2.0]))).replace(b"2.0", b"1e999", 1),
             "value must be finite (column value, row 2): found inf; leave unknown values empty."),
    _refused("epoch seconds", LOAD, records(_private(_changed(_PLAIN, 0, timestamp=1772409600))),
             f"timestamp must be ISO 8601 (column timestamp, row 1): found 1772409600; {_ISO}"),
    _refused("epoch milliseconds of readings", ANOMALY, records(_private(readings([1.0], timestamp=1772409600000))),
             f"timestamp must be ISO 8601 (column timestamp, row 1): found 1772409600000; {_ISO}"),
    _refused("a day that does not exist", LOAD,
             records(_private(_changed(_PLAIN, 3, timestamp="2026-02-30T00:00:00Z"))),
             f"timestamp must be ISO 8601 (column timestamp, row 4): found '2026-02-30T00:00:00Z'; {_ISO}"),
    _refused("half an hour", LOAD, records(_private(_changed(_PLAIN, 3, timestamp="2026-03-02T03:30:00Z"))),
             "timestamp of hourly load must be the start of an hour in UTC (column timestamp, row 4): "
             "found 2026-03-02T03:30:00.000000; aggregate readings to hours first."),
    _refused("one unknown sensor alone", LOAD, records([{"sensor_id": "nobody", "note": PRIVATE}]),
             "no sensor of the request can be forecast: the sensor is unknown and no history was sent (sensor nobody); "
             "send its hourly load of the last weeks."),
    *(_refused(f"hours_ahead {value}", LOAD, records([*_BARE, {"sensor_id": PRIVATE}], hours_ahead=value),
               f"hours_ahead must lie in 1…168: found {value}.") for value in (0, 169, -1)),
    _refused('hours_ahead "x"', LOAD, records([*_BARE, {"sensor_id": PRIVATE}], hours_ahead="x"),
             "parameter hours_ahead must be a whole number."),
    _refused("hours_ahead 1.5", LOAD, records([*_BARE, {"sensor_id": PRIVATE}], hours_ahead=1.5),
             "parameter hours_ahead must be a whole number."),
    _refused("level 0", LOAD, records([*_BARE, {"sensor_id": PRIVATE}], level=0),
             "level must lie between 0 and 1: found 0.0; 0.9 asks for 90 %."),
    _refused("level 1.5", LOAD, records([*_BARE, {"sensor_id": PRIVATE}], level=1.5),
             "level must lie between 0 and 1: found 1.5; 0.9 asks for 90 %."),
    _refused('use_ml "maybe"', LOAD, records([*_BARE, {"sensor_id": PRIVATE}], use_ml="maybe"),
             "parameter use_ml must be a truth value (true or false)."),
    _refused("params in a list", LOAD, json.dumps({"dataframe_records": _BARE, "params": [PRIVATE]}).encode(),
             'params must be a JSON object; send {"params": {"hours_ahead": 24}}.'),
    _refused("CSV with ragged rows", LOAD, f"sensor_id\n{PRIVATE}\na,b,c,d\n".encode(),
             "a CSV request must be a table with a line of column names; separate columns by commas and rows by line "
             "ends.", content_type=CSV),
    _refused("half a Parquet file", ANOMALY, b"PAR1" + PRIVATE.encode(),
             "a Parquet request must be one whole Parquet file; send the bytes of the file.", content_type=PARQUET),
)  # fmt: skip

ANSWERED = (
    Odd("mixed offsets", LOAD, records(_at_offsets(_PLAIN), **_NAIVE), 200,
        "as in UTC: 100 plus the hour of the day", _daily(), records(_PLAIN, **_NAIVE)),
    Odd("mixed offsets, by the model", LOAD, records(_at_offsets(_PLAIN)), 200, "as in UTC",
        None, records(_PLAIN)),
    Odd("naive timestamps", LOAD, records(_naive(_PLAIN), **_NAIVE), 200, "taken as UTC",
        _origin("2026-03-15T23:00:00Z"), records(_PLAIN, **_NAIVE)),
    Odd("unordered rows", LOAD, records(_PLAIN[::-1]), 200, "as if ordered", None, records(_PLAIN)),
    Odd("duplicates", LOAD, records([*_PLAIN, *_PLAIN[:100]]), 200, "counted once", None, records(_PLAIN)),
    Odd("two values for one hour", LOAD,
        records([*_PLAIN, *(row | {"avg_value": row["avg_value"] + 2} for row in _PLAIN)], **_NAIVE), 200,
        "their mean", None, records([row | {"avg_value": row["avg_value"] + 1} for row in _PLAIN], **_NAIVE)),
    Odd("gaps", LOAD, records(_PLAIN[:250] + _PLAIN[262:], **_NAIVE), 200,
        "an earlier day or week of the same hour stands in", _daily()),
    Odd("one row", LOAD, records(_PLAIN[:1]), 200,
        "the hour a day later is forecast, the others are null with a reason", _one_row),
    Odd("a bad sensor among good ones", LOAD, records([{"sensor_id": "nobody"}, *_PLAIN], **_NAIVE), 200,
        "null and a reason for it, forecasts for the others", _bad_among_good),
    Odd("future timestamps", LOAD, records(hours(start=datetime(2150, 3, 2, tzinfo=UTC)), **_NAIVE), 200,
        "forecast from that time on", _origin("2150-03-15T23:00:00Z")),
    Odd("CSV", LOAD, _csv(_PLAIN), 200, "as in JSON", None, records(_PLAIN), CSV),
    Odd("Parquet", LOAD, _parquet(_PLAIN), 200, "as in JSON", None, records(_PLAIN), PARQUET),
    Odd("10,000 sensors", LOAD, _many_sensors, 200, "each its own value of a day before", _ten_thousand),
    Odd("a row without values among others", LOAD, records(_changed(_PLAIN, 100, avg_value=None), **_NAIVE), 200,
        "a gap", _daily()),
    Odd("a column that is unknown", LOAD, records(hours(note="x")), 200, "ignored", None, records(_PLAIN)),
    Odd("a slow client", LOAD, records(_PLAIN, **_NAIVE), 200, "waited for, while others are answered", _daily(),
        stall=True, gateway_status=408),
    Odd("mixed offsets of readings", ANOMALY, records(_at_offsets(readings(_SINE))), 200, "as in UTC",
        _in_order(48), records(readings(_SINE))),
    Odd("naive timestamps of readings", ANOMALY, records(_naive(readings(_SINE))), 200, "taken as UTC",
        _in_order(48), records(readings(_SINE))),
    Odd("unordered readings", ANOMALY, records(readings(_SINE)[::-1]), 200,
        "row for row in the request's order, each judged by what came before it in time",
        _backwards),
    Odd("duplicate readings", ANOMALY, records([*readings(_SINE), *readings(_SINE)]), 200, "scored alike", _alike),
    Odd("two values for one instant", ANOMALY,
        records([*readings(_SINE), *readings([500.0], start=_START + timedelta(hours=47))]), 200,
        "both judged, and said", _conflict),
    Odd("one reading", ANOMALY, records(readings([1e9])), 200,
        "judged by what is known of its type: flagged, with a reason", _absurd_flagged),
    Odd("a reading without a value", ANOMALY, records(readings([100.0, None, 101.0])), 200,
        "flagged: no value; the others are scored", _no_value),
    Odd("future readings", ANOMALY, records(readings(_SINE, start=datetime(2150, 3, 2, tzinfo=UTC))), 200,
        "judged", _in_order(48)),
    Odd("readings in CSV", ANOMALY, _csv(readings(_SINE)), 200, "as in JSON", None, records(readings(_SINE)), CSV),
    Odd("readings in Parquet", ANOMALY, _parquet(readings(_SINE)), 200, "as in JSON", None,
        records(readings(_SINE)), PARQUET),
)  # fmt: skip

#: What MLflow's server decides before the model sees the request; a gateway may refuse it.
MLFLOW = (
    Odd("unknown parameter", LOAD, records(_BARE, hours=3), 200, "ignored: 24 hours are forecast", _stored(24)),
    Odd('level "0.5", a number in quotes', LOAD, records(_BARE, level="0.5", hours_ahead=2), 400,
        "parameter level must be a number."),
    Odd("level 1 as a whole number", LOAD, records(_BARE, level=1, hours_ahead=2), 400,
        "level must lie between 0 and 1: found 1.0; 0.9 asks for 90 %."),
    Odd("no Content-Type", LOAD, records(_BARE), 500, "Internal Server Error", content_type=None, gateway_status=415),
    Odd("Content-Type text/plain", LOAD, records(_BARE), 415,
        "This predictor only supports the following content types: Types: ['text/csv', 'application/json', "
        "'application/vnd.apache.parquet']. Got 'text/plain'.", content_type="text/plain", gateway_status=415),
    Odd("Content-Type with charset latin-1", LOAD, records(_BARE), 415, "The scoring server only supports UTF-8",
        content_type="application/json; charset=latin-1", gateway_status=415),
)  # fmt: skip

TABLE = (*REFUSED, *ANSWERED, *MLFLOW)


# ----------------------------------------------------------------------------------------------- the page

_HEAD = f"""# Odd requests

What `mlflow models serve` answers to requests that are broken or unusual, with this product's models. Each line is
tested against the running server, and no answer holds a stack trace, a path of the server or the request. The tested
server was started with `SMARTGRID_MAX_ROWS={MAX_ROWS}`; without that variable a request may hold two million rows. Any
other value than a whole number above 0 is an error when the server starts.

MLflow itself repeats the request, and adds a stack trace, where it cannot read a request or the model fails; the
model replaces these messages while it is served, and logs the trace of a failure.

This page is written by `python -m tests.e2e.odd_requests > docs/odd-requests.md`.
"""
_TITLES = (
    ("Refused", REFUSED, "sentence"),
    ("Answered", ANSWERED, "checked"),
    ("Decided by MLflow's server", MLFLOW, "answer"),
)
_TAIL = """
CSV and Parquet have no place for parameters: the defaults hold. The server sets no limit to the size of a body and
waits for slow clients; both are the gateway's task. A request that takes over 60 s is answered with 504
(`MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`).
"""


def page() -> str:
    """Return the documentation page."""
    return _HEAD + "".join(_section(title, lines, what) for title, lines, what in _TITLES) + _TAIL


def _section(title: str, lines: Iterable[Odd], what: str) -> str:
    rows = "".join(
        f"| {odd.name} | {odd.model.removesuffix('Model')} | {odd.status} | {_cell(odd.sentence)} | "
        f"{odd.gateway_status or odd.status} |\n"
        for odd in lines
    )
    return f"\n## {title}\n\n| request | model | status | {what} | at the gateway |\n|---|---|---:|---|---:|\n{rows}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
