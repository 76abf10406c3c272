"""What a person sees in the MLflow UI after both trainings, read from the pages by a real browser.

SMARTGRID_SCREENSHOTS=docs/ui python -m pytest tests/e2e/test_ui.py      keeps the pictures
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest

from smartgrid_pyfunc.schema import ANOMALY_EXPERIMENT, ANOMALY_MODEL, LOAD_EXPERIMENT, LOAD_MODEL
from tests.parts import free_port

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is missing: pip install -r requirements-dev.txt"
)

pytestmark = pytest.mark.e2e

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30_000  # ms
#: What a person sets by two clicks: the side for trained models, and no assistant beside the page.
_CHOSEN = """
localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


@dataclass(frozen=True)
class _Site:
    address: str
    load_runs: tuple[str, str]
    anomaly_run: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    """A tracking server that has seen two load models, one detector and their promotions."""
    folder = tmp_path_factory.mktemp("ui")
    address = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"),
            *("--port", address.rpartition(":")[2]),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )
    try:
        _wait_for(address, server)
        run = partial(_run, folder, address)
        run("simulate", to="grid", sensors=6, days=70, seed=3, fault_rate=0.001)
        for trees in (5, 9):
            run("load_forecasting", data="grid/hourly_load", test_days=14, n_estimators=trees, timezone="Europe/Berlin")
        run("anomaly_detection", data="grid/readings", n_estimators=20)
        run("promote", model=LOAD_MODEL, version=1, force="true", reason="first version")
        run("promote", model=LOAD_MODEL, version=2, stage="Staging", force="true")
        run("promote", model=ANOMALY_MODEL, version=1, force="true")
        yield _site(address)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _run(folder: Path, address: str, name: str, **parameters: object) -> None:
    """Run an entry point in `folder`, as one of the team would."""
    given = [f"--{key}={value}" for key, value in parameters.items()]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": address, "LOGNAME": "analyst"}
    done = subprocess.run(
        [sys.executable, str(_ROOT / "entrypoints" / f"{name}.py"), *given],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def _site(address: str) -> _Site:
    client = mlflow.MlflowClient(address)
    load = [client.get_model_version(LOAD_MODEL, number).run_id for number in ("1", "2")]
    detector = client.get_model_version(ANOMALY_MODEL, "1").run_id
    assert all((*load, detector))
    return _Site(address, (str(load[0]), str(load[1])), str(detector))


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the tracking server ended"
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the tracking server does not answer")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    with sync_api.sync_playwright() as player:
        started = player.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC", locale="en-GB")
    context.add_init_script(_CHOSEN)
    context.set_default_timeout(_PATIENCE)
    opened = context.new_page()
    yield opened
    context.close()


@pytest.fixture
def keep(page: sync_api.Page) -> Callable[[str], None]:
    """Keep a picture of the page, if a folder for them is named."""
    folder = os.environ.get("SMARTGRID_SCREENSHOTS")

    def keep_picture(name: str) -> None:
        if folder:
            page.wait_for_timeout(1500)  # charts move into their place
            path = Path(folder).resolve() / f"{name}.png"
            page.screenshot(path=path)
            _shrink(path)

    return keep_picture


def _shrink(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
    small.save(path, optimize=True)


def _experiment(site: _Site, name: str) -> str:
    found = mlflow.MlflowClient(site.address).get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def _saw(page: sync_api.Page, *texts: str) -> None:
    """Hold that each text is seen on the page."""
    for text in texts:
        sync_api.expect(page.get_by_text(text).first).to_be_visible(timeout=_PATIENCE)


def test_from_the_first_page_to_a_run_with_its_card_and_plots(site, page, keep):
    page.goto(f"{site.address}/#/experiments")
    page.get_by_role("link", name=LOAD_EXPERIMENT).first.click()
    _saw(page, "random forest of 5 trees, 24 h ahead", "random forest of 9 trees, 24 h ahead", "LoadForecastingModel")
    keep("experiment")
    page.get_by_text("random forest of 9 trees, 24 h ahead").first.click()
    _saw(
        page, "Hourly load of every sensor for the next 1 to 168 hours", "better seasonal naive", "skill over the naive"
    )
    _saw(page, "timezone = Europe/Berlin", "test_mae", "naive_mae", "n_estimators")
    keep("run")


@pytest.mark.parametrize(
    ("experiment", "plot"),
    [
        (LOAD_EXPERIMENT, "forecast_against_actual"),
        (LOAD_EXPERIMENT, "error_by_horizon"),
        (ANOMALY_EXPERIMENT, "flagged_readings"),
    ],
)
def test_plots_are_drawn_on_the_page_of_the_run(site, page, keep, experiment, plot):
    run = site.load_runs[1] if experiment == LOAD_EXPERIMENT else site.anomaly_run
    place = f"experiments/{_experiment(site, experiment)}/runs/{run}"
    page.goto(f"{site.address}/#/{place}/artifacts/plots/{plot}.png")
    _saw(page, f"plots/{plot}.png")
    picture = page.locator("img[src^='blob:'], img[src^='data:image'], img[src*='artifact']").first
    picture.wait_for()
    page.wait_for_function("i => i.complete && i.naturalWidth > 400", arg=picture.element_handle())
    keep(plot)


def test_registered_models_show_their_page_and_who_holds_which_alias(site, page, keep):
    page.goto(f"{site.address}/#/models")
    if (modal := page.get_by_role("button", name=re.compile("got it|close|cancel", re.IGNORECASE))).count():
        modal.first.click()
    _saw(page, LOAD_MODEL, ANOMALY_MODEL, "champion", "challenger")
    keep("models")
    page.goto(f"{site.address}/#/models/{LOAD_MODEL}")
    _saw(page, "Hourly load forecasts", "@ champion", "@ challenger", "Version 1", "Version 2")
    keep("model")


def test_a_version_shows_its_card_stage_alias_and_who_promoted_it(site, page, keep):
    page.goto(f"{site.address}/#/models/{LOAD_MODEL}/versions/1")
    _saw(page, "Hourly load of every sensor for the next 1 to 168 hours", "Production", "champion", "Limits")
    _saw(page, "mlflow models serve -m models:/LoadForecastingModel/Production", "smartgrid.promoted_by")
    keep("version")


def test_two_runs_are_compared_side_by_side(site, page, keep):
    experiment = _experiment(site, LOAD_EXPERIMENT)
    query = f"runs={quote(json.dumps(site.load_runs))}&experiments={quote(json.dumps([experiment]))}"
    page.goto(f"{site.address}/#/compare-runs?{query}")
    _saw(page, "Comparing 2 Runs from 1 Experiment", "Parallel Coordinates Plot", "n_estimators")
    page.get_by_text("test_mae", exact=True).first.wait_for(state="attached")
    keep("comparison")
