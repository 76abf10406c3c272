"""The backtest as a user starts it, with a real MLflow store: one run that holds everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from smartgrid_pyfunc.schema import LOAD_EXPERIMENT, InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.training.backtest import Plan, backtest_load_model
from smartgrid_pyfunc.training.load_forecasting import train_load_model

pytestmark = pytest.mark.integration

OPTIONS = {"n_estimators": 6, "max_rows": 2_000}
PLOTS = {f"plots/{n}.png" for n in ("error_by_horizon", "error_by_hour", "error_by_window", "forecast_against_actual",
                                    "intervals")}  # fmt: skip
TABLES = {f"tables/{n}" for n in ("by_sensor.csv", "by_horizon.csv", "by_hour.csv", "by_window.csv", "intervals.csv",
                                  "forecasts.parquet")}  # fmt: skip


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("simulated") / "grid"
    simulate(folder, sensors=4, days=60, step_minutes=60, faults=False)
    return str(folder / "hourly_load")


def only_run(uri: str) -> Run:
    api = MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in api.search_experiments()]
    (run,) = api.search_runs(experiments)
    assert api.get_experiment(run.info.experiment_id).name == LOAD_EXPERIMENT
    assert run.info.status == "FINISHED"
    return run


def downloaded(run: Run, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))


def start(repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = repo / "entrypoints" / "backtest.py"
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def test_the_entry_point_leaves_one_run_with_metrics_tables_and_plots(repo: Path, grid: str, tracking: str) -> None:
    done = start(
        repo, "--data", grid, "--windows", "2", "--window-days", "7", "--n-estimators", "6", "--jobs", "2",
        "--level", "0.8", "--timezone", "Australia/Melbourne",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "window 2 of 2: MAE" in done.stderr
    run = only_run(tracking)
    assert run.info.run_name.startswith("backtest ")
    names = {f"{top}/{file.name}" for top in ("tables", "plots") for file in downloaded(run, top).iterdir()}
    assert names == TABLES | PLOTS
    assert run.data.params["windows"] == "2"
    assert run.data.params["level"] == "0.8"
    check_metrics_against_sql(run)
    check_intervals_against_sql(run)
    check_windows(run, done.stdout)


def check_metrics_against_sql(run: Run) -> None:
    """Every logged figure follows from the forecasts that stand beside it."""
    file = downloaded(run, "tables/forecasts.parquet")
    found = duckdb.sql(f"""
        with scored as (select *, actual - lower as below, actual - upper as above from '{file}'
                        where actual + predicted + naive_24 + naive_168 is not null)
        select avg(abs(predicted - actual)) as backtest_mae,
               sqrt(avg((predicted - actual) ** 2)) as backtest_rmse,
               avg((actual between lower and upper)::int) as backtest_coverage,
               avg(greatest(0.1 * below, -0.9 * below)) as backtest_pinball_lower,
               avg(greatest(0.9 * above, -0.1 * above)) as backtest_pinball_upper,
               avg(abs(naive_24 - actual)) as naive_24_mae,
               avg(abs(naive_168 - actual)) as naive_168_mae,
               count(*) as backtest_rows
        from scored""").df().iloc[0].to_dict()  # fmt: skip
    for name, value in found.items():
        assert run.data.metrics[name] == pytest.approx(value, rel=1e-9), name
    naive = min(found["naive_24_mae"], found["naive_168_mae"])
    assert run.data.metrics["naive_mae"] == pytest.approx(naive)
    assert run.data.metrics["backtest_skill"] == pytest.approx(1 - found["backtest_mae"] / naive)
    assert found["backtest_pinball_lower"] + found["backtest_pinball_upper"] == pytest.approx(
        2 * run.data.metrics["backtest_pinball"]
    )
    assert run.data.metrics["backtest_mase"] > 0
    for name in ("by_sensor", "by_horizon", "by_hour"):
        table = pd.read_csv(downloaded(run, f"tables/{name}.csv"))
        assert (table["n"] * table["mae"]).sum() / table["n"].sum() == pytest.approx(found["backtest_mae"]), name


def check_intervals_against_sql(run: Run) -> None:
    """The rolling interval is that of the rank among the errors that were known at its origin, by a join."""
    file = downloaded(run, "tables/forecasts.parquet")
    found = duckdb.sql(f"""
        with f as (select *, abs(actual - predicted) / scale as score from '{file}'),
        earlier as (select o.sensor_id, o.origin, o.horizon, list(e.score order by e.score) as scores
                    from f o join f e on e.sensor_id = o.sensor_id and e.horizon = o.horizon and e.score is not null
                    and e.timestamp <= o.origin and e.timestamp > o.origin - interval 28 day group by all),
        widths as (select sensor_id, origin, horizon, scores[ceil((len(scores) + 1) * 0.8)::int] as width from earlier)
        select count(*) as n, avg((abs(actual - predicted) <= width * scale)::int) as rolling,
               avg((actual between lower and upper)::int) as own
        from f join widths using (sensor_id, origin, horizon) where width is not null and actual is not null
    """).df().iloc[0]  # fmt: skip
    metrics = run.data.metrics
    assert found["n"] == metrics["backtest_rolling_rows"] > 100
    assert metrics["backtest_rolling_coverage"] == pytest.approx(found["rolling"], rel=1e-9)
    assert metrics["backtest_compared_coverage"] == pytest.approx(found["own"], rel=1e-9)
    table = pd.read_csv(downloaded(run, "tables/intervals.csv"))
    assert sorted(table["level"].unique()) == [0.8, 0.9, 0.95]
    assert set(table["intervals"]) == {"model", "rolling"}


def check_windows(run: Run, printed: str) -> None:
    table = pd.read_csv(downloaded(run, "tables/by_window.csv"))
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "window_mae")
    assert sorted((m.step, m.value) for m in history) == [
        (row.window, pytest.approx(row.mae)) for row in table.itertuples()
    ]
    for row in table.itertuples():
        assert f"{row.mae:.4g}" in printed
    fitted_until = pd.to_datetime(table["fitted_until"])
    assert (fitted_until < pd.to_datetime(table["first"])).all()


def test_processes_change_nothing_but_the_time(grid: str, tracking: str) -> None:
    runs = [
        backtest_load_model(grid, plan=Plan(windows=2, window_days=7, jobs=jobs), **OPTIONS).run_id for jobs in (1, 2)
    ]
    one, two = (
        pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run}/tables/forecasts.parquet")) for run in runs
    )
    pd.testing.assert_frame_equal(one, two)


def test_an_error_in_a_process_is_told_as_it_is_and_fails_the_run(repo: Path, grid: str, tracking: str) -> None:
    data = Path(grid).parent / "plain.csv"
    hourly = pd.concat([pd.read_parquet(file) for file in sorted(Path(grid).glob("*.parquet"))])
    hourly[["sensor_id", "timestamp", "avg_value"]].to_csv(data, index=False)
    done = start(
        repo, "--data", str(data), "--windows", "2", "--window-days", "7", "--n-estimators", "6", "--jobs", "2",
        "--covariates", "temperature",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1] == (
        "Error: covariate temperature must be a column of the data: found no covariates; "
        "covariates=auto takes those present."
    )
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


def test_a_registered_version_is_evaluated_on_newer_data_only(grid: str, tracking: str, tmp_path: Path) -> None:
    hourly = pd.concat([pd.read_parquet(file) for file in sorted(Path(grid).glob("*.parquet"))])
    times = pd.to_datetime(hourly["timestamp"], utc=True)
    early = tmp_path / "early.parquet"
    hourly[times < times.max() - pd.Timedelta(days=15)].to_parquet(early, index=False)
    trained = train_load_model(str(early), test_days=7, timezone="Australia/Melbourne", **OPTIONS)
    assert trained.version == "1"
    found = backtest_load_model(grid, plan=Plan(windows=2, window_days=7), model="1", n_estimators=99)
    assert found.timezone == "Australia/Melbourne"  # the version's own
    assert len(found.by_window) == 2
    params = mlflow.get_run(found.run_id).data.params
    assert (params["model"], params["n_estimators"]) == ("1", "6")
    with pytest.raises(InputError, match="must lie after the last hour that the version learnt from"):
        backtest_load_model(grid, plan=Plan(windows=3, window_days=7), model="1")
