"""What the monitor pushes, through Pushgateway, Prometheus and Alertmanager to a webhook; and the dashboards."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.parts import free_port, started

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60
_QUIET = """
smartgrid_alert{alert="level_shift",severity="critical"} 0
smartgrid_alert_value{alert="level_shift"} 0.2
smartgrid_alert_threshold{alert="level_shift"} 1
smartgrid_alert_since_timestamp_seconds{alert="level_shift"} 0
smartgrid_forecast_mae{version="3"} 12.5
smartgrid_forecast_skill{version="3"} 0.4
smartgrid_forecast_bias{version="3"} -0.5
smartgrid_forecast_coverage{version="3"} 0.9
smartgrid_anomaly_rate{version="3"} 0.01
"""
_SHIFTED = _QUIET.replace('"critical"} 0', '"critical"} 1').replace(
    'value{alert="level_shift"} 0.2', 'value{alert="level_shift"} 2.5'
)


@dataclass
class _Stack:
    push: str
    prometheus: str
    messages: queue.Queue[dict[str, Any]]

    def report(self, text: str) -> None:
        """Put the metrics of a report in the place of the former one, as the monitor does."""
        body = f"{text}smartgrid_monitor_timestamp_seconds {time.time()}\n".encode()
        address = f"{self.push}/metrics/job/smartgrid_monitor/model/LoadForecastingModel"
        with urllib.request.urlopen(urllib.request.Request(address, body, method="PUT"), timeout=10):
            pass

    def ask(self, expression: str) -> list[dict[str, Any]]:
        address = f"{self.prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def page(self, path: str) -> str:
        with urllib.request.urlopen(self.prometheus + path, timeout=10) as answer:
            return str(answer.read().decode())

    def message(self, status: str) -> dict[str, Any]:
        """Return the next message of this status about the monitor's alert."""
        ends = time.monotonic() + _SECONDS
        while (left := ends - time.monotonic()) > 0:
            try:
                got = self.messages.get(timeout=left)
            except queue.Empty:
                break
            if got["status"] == status and any(a["labels"]["alertname"] == "SmartgridMonitor" for a in got["alerts"]):
                return got
        raise AssertionError(f"no {status} message within {_SECONDS} s")


@pytest.fixture(scope="module")
def stack() -> Iterator[_Stack]:
    if not all(shutil.which(name) for name in ("prometheus", "prometheus-alertmanager", "prometheus-pushgateway")):
        pytest.skip("missing: apt-get install prometheus prometheus-alertmanager prometheus-pushgateway")
    messages: queue.Queue[dict[str, Any]] = queue.Queue()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    push, prometheus, alertmanager = free_port(), free_port(), free_port()
    ports = {"PUSHGATEWAY_PORT": push, "PROMETHEUS_PORT": prometheus, "ALERTMANAGER_PORT": alertmanager}
    try:
        with started(
            "monitoring.sh",
            push,
            WEBHOOK_URL=f"http://127.0.0.1:{listener.server_port}/",
            INTERVAL="1s",
            GROUP_WAIT="1s",
            GROUP_INTERVAL="1s",
            **{name: str(port) for name, port in ports.items()},
        ) as part:
            yield _Stack(part.address, f"http://127.0.0.1:{prometheus}", messages)
    finally:
        listener.shutdown()
        listener.server_close()


def _until(found: Any) -> None:
    ends = time.monotonic() + _SECONDS
    while not found():
        assert time.monotonic() < ends, "not seen in time"
        time.sleep(0.2)


def test_an_alert_reaches_the_webhook_with_all_that_it_must_say_and_is_called_off(stack):
    stack.report(_QUIET)
    _until(lambda: stack.ask("smartgrid_alert == 0"))
    assert "No alert." in stack.page("/consoles/smartgrid.html")
    assert stack.messages.empty()

    stack.report(_SHIFTED)
    (alert,) = stack.message("firing")["alerts"]
    assert alert["labels"]["model"] == "LoadForecastingModel" and alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "level_shift (critical) on LoadForecastingModel"
    assert alert["annotations"]["value"] == "2.5 against a threshold of 1"
    assert alert["annotations"]["command"] == "mlflow run . -e monitor -P model=LoadForecastingModel"
    assert alert["annotations"]["since"].startswith("1970-01-01")
    page = stack.page("/consoles/smartgrid.html")
    assert "level_shift" in page and "40%" in page and "12.5" in page and "No alert." not in page

    stack.report(_QUIET)
    assert stack.message("resolved")["alerts"][0]["labels"]["alert"] == "level_shift"


def test_every_panel_of_the_dashboard_asks_what_prometheus_can_answer(stack):
    stack.report(_SHIFTED)
    _until(lambda: stack.ask("smartgrid_alert == 1"))
    dashboard = json.loads((_ROOT / "deploy" / "grafana" / "smartgrid.json").read_text())
    asked = {panel["title"]: target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert len(asked) == len(dashboard["panels"]) == 8
    assert [title for title, expression in asked.items() if not stack.ask(expression)] == []
