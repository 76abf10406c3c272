"""Replay a year in the life of a model by the commands a person would type, and write down what was typed and said.

python docs/year.py FOLDER >docs/year.md

needs chromium and the packages of requirements-dev.txt for the pictures (docs/year/*.png). Times are given with
``now``; ids and figures differ from run to run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

_ROOT = Path(__file__).resolve().parents[1]
_PORT = 5905
_SHIFT = pd.Timestamp("2026-06-10T00:00Z")
_SHIFTED, _FACTOR = 3, 1.35  # sensors whose load rises for good, and by how much
_NOISE = re.compile(r"^(🏃|🧪)|Warn|WARN|INFO mlflow|^ *$|=== |^ +from |alembic|color_warning|warnings\.warn")


def main(folder: Path) -> None:
    """Play the year in `folder`, whose ``meters`` gets a file a month."""
    folder.mkdir(parents=True)
    with _server(folder) as address:
        os.environ.update(MLFLOW_TRACKING_URI=address, LOGNAME="analyst")
        year = _Year(folder)
        _spring(year)
        _summer(year)
        _autumn(year)
        _pictures(address, Path(__file__).with_name("year"))


class _Year:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _tell("# A year of one model, by its commands")
        _tell("Written by `docs/year.py`: 6 simulated sensors, commands as typed, answers as given (long ones cut).")
        self.run(
            "simulate", to="simulated", sensors=6, days=400, start="2025-09-01", step_minutes=60, fault_rate=0, seed=5
        )
        self._months = self._with_a_rise()

    def _with_a_rise(self) -> dict[str, pd.DataFrame]:
        hourly = pd.read_parquet(self._folder / "simulated" / "hourly_load")
        grown = sorted(hourly["sensor_id"].unique())[:_SHIFTED]
        rows = hourly["sensor_id"].isin(grown) & (hourly["timestamp"] >= _SHIFT)
        for name in ("avg_value", "min_value", "max_value"):
            hourly.loc[rows, name] *= _FACTOR
        return dict(iter(hourly.groupby(hourly["timestamp"].dt.strftime("%Y-%m"))))

    def deliver(self, until: str) -> None:
        """Let the files of the months up to `until` arrive."""
        place = self._folder / "meters"
        place.mkdir(exist_ok=True)
        for month, rows in self._months.items():
            if month <= until and not (place / f"{month}.parquet").exists():
                rows.to_parquet(place / f"{month}.parquet", index=False)

    def export_late(self, until: str, hours: int) -> None:
        """Write an export whose clock is wrong by some hours."""
        rows = pd.concat(part for month, part in self._months.items() if month <= until)
        wrong = rows.assign(timestamp=rows["timestamp"] + pd.Timedelta(hours=hours))
        wrong.to_parquet(self._folder / "export.parquet", index=False)

    def run(self, name: str, *, lines: int = 24, code: int = 0, **parameters: object) -> str:
        """Run an entry point, show command and answer, and hold its exit code."""
        shown = " ".join(f"-P {key}={_quoted(str(value))}" for key, value in parameters.items())
        given = [f"--{key}={value}" for key, value in parameters.items()]
        done = subprocess.run(
            [sys.executable, str(_ROOT / "entrypoints" / f"{name}.py"), *given],
            cwd=self._folder,
            capture_output=True,
            text=True,
        )
        said = done.stdout if code in (0, 4) else done.stdout + done.stderr
        kept = [line.rstrip() for line in said.splitlines() if not _NOISE.search(line)]
        _tell(f"```console\n$ mlflow run . -e {name} {shown}\n" + "\n".join(_wrapped(kept[:lines])) + "\n```")
        if done.returncode != code:
            sys.exit(f"{name} ended with {done.returncode}, not {code}:\n{done.stderr}")
        return said


def _spring(year: _Year) -> None:
    _tell("## March: a first version")
    year.deliver("2026-03")
    year.run("load_forecasting", data="meters", n_estimators=15, lines=3)
    year.run("promote", model="LoadForecastingModel", reason="first version", now="2026-03-31T12:00:00Z", lines=8)
    _tell("## April and May: every night a forecast, every week a look")
    year.deliver("2026-05")
    year.run("batch_forecast", data="meters", since="2026-04-01", until="2026-06-01", lines=4)
    year.run("monitor", data="meters", now="2026-06-01")


def _summer(year: _Year) -> None:
    _tell(f"## June: on the {_SHIFT:%d}th the load of three sensors rises by {_FACTOR - 1:.0%}, for good")
    year.deliver("2026-06")
    year.run("batch_forecast", data="meters", since="2026-06-01", until="2026-06-21", lines=4)
    year.run("monitor", data="meters", now="2026-06-21", code=4, lines=40)
    _tell("## July: a challenger, trained with the new level in its data")
    year.deliver("2026-07")
    year.run("load_forecasting", data="meters", n_estimators=15, lines=3)
    year.run("promote", model="LoadForecastingModel", stage="Staging", now="2026-08-01T09:00:00Z", lines=8)
    year.run("compare", model="LoadForecastingModel")
    year.run("promote", model="LoadForecastingModel", reason="the load has risen", now="2026-08-02T09:00:00Z", lines=14)


def _autumn(year: _Year) -> None:
    _tell("## August: a version from an export whose clock is wrong is refused")
    year.export_late("2026-07", hours=6)
    year.run("load_forecasting", data="export.parquet", n_estimators=15, lines=3)
    year.deliver("2026-08")
    year.run("promote", model="LoadForecastingModel", data="meters", now="2026-08-30T09:00:00Z", code=3)
    _tell("Somebody forces it all the same, and it is taken back:")
    year.run(
        "promote", model="LoadForecastingModel", force="true", now="2026-08-30T10:00:00Z", reason="in a hurry", lines=8
    )
    year.run(
        "rollback", model="LoadForecastingModel", reason="errs in the evening", now="2026-08-31T07:00:00Z", lines=5
    )
    _tell("## What was in Production?")
    for month in range(3, 10):
        day = f"2026-{month:02d}-15"
        year.run("audit", model="LoadForecastingModel", at=day, lines=2 if month < 9 else 60)


def _tell(text: str) -> None:
    print(f"{text}\n", flush=True)


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value or not value else value


def _wrapped(lines: list[str]) -> Iterator[str]:
    for line in lines:
        while len(line) > 140:
            cut = line.rfind(" ", 60, 140)
            yield line[: cut if cut > 0 else 140]
            line = "    " + line[cut + 1 if cut > 0 else 140 :]
        yield line


# ----------------------------------------------------------------------------------------------- server and pictures


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    address = f"http://127.0.0.1:{_PORT}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(_PORT), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "store"),
    ]
    process = subprocess.Popen([*command, *stores], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def _pictures(address: str, folder: Path) -> None:
    import mlflow
    from PIL import Image
    from playwright.sync_api import sync_playwright

    folder.mkdir(exist_ok=True)
    client, pages = mlflow.MlflowClient(address), {}
    for name in ("decisions", "comparisons", "monitoring"):
        found = client.get_experiment_by_name(f"smartgrid-{name}")
        if found is None:
            continue
        pages[name] = f"#/experiments/{found.experiment_id}/runs"
        runs = client.search_runs([found.experiment_id], order_by=["start_time ASC"])
        chosen = next((run for run in runs if run.data.tags.get("smartgrid.verdict") not in ("ok", "promoted")), None)
        if chosen is not None:
            pages[f"{name}-run"] = f"#/experiments/{found.experiment_id}/runs/{chosen.info.run_id}"
    _tell("## In the MLflow UI")
    with sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC", locale="en-GB")
        context.add_init_script(
            "localStorage.setItem('mlflow.workflowType_v1', '\"machine_learning\"');"
            "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
            "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
        )
        page = context.new_page()
        for name, place in pages.items():
            page.goto(f"{address}/{place}")
            page.wait_for_timeout(5000)
            path = folder / f"{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as picture:
                small = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
            small.save(path, optimize=True)
            _tell(f"![{name.replace('-', ', ')}](year/{name}.png)")
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
