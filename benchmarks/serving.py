"""The load model on `mlflow models serve` under load and faults, beside an echo model and a plain scikit-learn forest.

    python benchmarks/serving.py                      throughput, latency, memory, cold start
    python benchmarks/serving.py --soak 600 --faults  and ten minutes at 8 clients, a worker and a database killed
    python benchmarks/serving.py --gateway http://127.0.0.1:5000 --token TOKEN_FILE --behind http://127.0.0.1:5101
                                                      a running gateway beside the server behind it

Each request holds four weeks of hourly load of one sensor in JSON and asks for 24 hours; the plain forest is sent the
24 rows of eleven features that its caller would have to compute. All servers run at once and are asked in turn, for
some seconds each, in several rounds; the clients are threads of this process and share the machine with the servers.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from servers import AHEAD, HISTORY, Server, as_asked, logged_echo, logged_model, request_body, served

_REPOSITORY = Path(__file__).resolve().parents[1]
_OURS, _ECHO, _PLAIN = "load model", "echo", "plain forest"
_TARGET_ECHO, _TARGET_GATEWAY = 1.5, 1.15
_INTERVAL = 60  # s between reads of a history store


@dataclass(frozen=True)
class Target:
    """An address that is asked: with which body, and how an answer is judged."""

    address: str
    path: str
    body: bytes
    right: Callable[[Any], bool]
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, connection: http.client.HTTPConnection) -> bool:
        """Ask once; return whether the answer is right. Raises what the connection raises."""
        connection.request("POST", self.path, self.body, {"Content-Type": "application/json", **self.headers})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {text[:200]!r}")
        return self.right(json.loads(text))


@dataclass
class Load:
    """What some clients saw: seconds of each request, failures and wrong answers."""

    spent: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: int = 0
    seconds: float = 0.0

    def add(self, other: Load) -> None:
        """Count another round in."""
        self.spent += other.spent
        self.failures += other.failures
        self.wrong += other.wrong
        self.seconds += other.seconds

    def per_second(self) -> float:
        """Return right answers per second."""
        return len(self.spent) / self.seconds

    def quantile(self, p: float) -> float:
        """Return a quantile of the times [ms]."""
        return 1e3 * float(np.quantile(self.spent, p)) if self.spent else float("nan")


def main() -> None:
    """Start the servers, load them, print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="smartgrid-serving-") as name:
        folder = Path(name)
        os.chdir(folder)  # where MLflow lays its store
        _print_head(arguments)
        if arguments.gateway:
            _compare_gateway(arguments)
            return
        model = Path(arguments.model).resolve() if arguments.model else logged_model(folder, "random_forest")
        models = {_ECHO: logged_echo(folder), _OURS: model, _PLAIN: _logged_plain(folder)}
        _compare(models, folder, arguments)
        if arguments.soak:
            _soak(model, folder, arguments.soak)
        if arguments.faults:
            _kill_worker(model, folder)
            _kill_history(model, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a logged load model; by default one is fitted to the demo")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each server, number of clients and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds at 8 clients")
    parser.add_argument("--faults", action="store_true", help="kill -9 a worker, and a database of history")
    parser.add_argument("--gateway", help="address of a running gateway; skipped without")
    parser.add_argument("--behind", help="address of the server behind that gateway")
    parser.add_argument("--token", help="file that holds the bearer token")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------- models and targets


def _logged_plain(folder: Path) -> Path:
    """Save a forest of 200 trees on eleven features with `mlflow.sklearn`."""
    import mlflow.sklearn
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 11))
    forest = RandomForestRegressor(200, min_samples_leaf=5, n_jobs=1, random_state=0)
    forest.fit(features, features.sum(axis=1) + rng.normal(size=len(features)))
    target = folder / "plain"
    mlflow.sklearn.save_model(forest, target, serialization_format="cloudpickle", pip_requirements=["mlflow"])
    return target


def _plain_body() -> bytes:
    rows = np.random.default_rng(1).normal(size=(AHEAD, 11)).tolist()
    return json.dumps({"dataframe_split": {"columns": [f"x{i}" for i in range(11)], "data": rows}}).encode()


def _target(name: str, port: int) -> Target:
    address = f"http://127.0.0.1:{port}"
    if name == _PLAIN:
        return Target(address, "/invocations", _plain_body(), lambda answer: len(answer["predictions"]) == AHEAD)
    return Target(address, "/invocations", request_body("split"), lambda answer: as_asked(answer["predictions"]))


def _only_first_answer(target: Target) -> Target:
    """Return the target whose answers are right if they equal the one that it gives now."""
    connection = _connect(target)
    connection.request("POST", target.path, target.body, {"Content-Type": "application/json", **target.headers})
    first = json.loads(connection.getresponse().read())
    if not target.right(first):
        raise RuntimeError(f"The first answer is wrong: {str(first)[:300]}")
    return Target(target.address, target.path, target.body, lambda answer: answer == first, target.headers)


# ------------------------------------------------------------------------------------------- load


def _connect(target: Target) -> http.client.HTTPConnection:
    address = urllib.parse.urlsplit(target.address)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)


def _client(target: Target, until: float, load: Load, lock: threading.Lock) -> None:
    connection, own = _connect(target), Load()
    while time.monotonic() < until:
        start = time.perf_counter()
        try:
            right = target.ask(connection)
            own.spent.append(time.perf_counter() - start)
            own.wrong += not right
        except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
            own.failures.append(f"{type(error).__name__}: {error}"[:160])
            connection.close()
            connection = _connect(target)
            time.sleep(0.05)
    with lock:
        load.add(own)


def _under_load(target: Target, clients: int, seconds: float) -> Load:
    load, lock = Load(), threading.Lock()
    start = time.monotonic()
    threads = [
        threading.Thread(target=_client, args=(target, start + seconds, load, lock), daemon=True)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - start
    return load


def _memory(server: Server) -> float:
    """Return the proportional set size of a server's processes [MB]."""
    leader = psutil.Process(server.process.pid)
    return sum(process.memory_full_info().pss for process in (leader, *leader.children(recursive=True))) / 1e6


# ------------------------------------------------------------------------------------------- comparisons


def _compare(models: Mapping[str, Path], folder: Path, arguments: argparse.Namespace) -> None:
    found: dict[tuple[str, int, int], Load] = {}
    with ExitStack() as stack:
        servers = {
            (name, workers): stack.enter_context(served(path, folder, workers))
            for workers in arguments.workers
            for name, path in models.items()
        }
        idle = {key: _memory(server) for key, server in servers.items()}
        for round_ in range(-1, arguments.rounds):  # the first one warms up and does not count
            for clients in arguments.clients:
                for (name, workers), server in servers.items():
                    seconds = arguments.seconds if round_ >= 0 else min(1.0, arguments.seconds)
                    load = _under_load(_target(name, server.port), clients, seconds)
                    if round_ >= 0:
                        found.setdefault((name, workers, clients), Load()).add(load)
        _print_servers(servers, idle)
    _print_loads(found)
    _print_ratios(found)


def _compare_gateway(arguments: argparse.Namespace) -> None:
    token = Path(arguments.token).read_text(encoding="utf-8").strip()
    body, path = request_body("split"), "/api/v1/analytics/predictive/load-forecast"
    targets = {
        "direct": Target(arguments.behind, "/invocations", body, lambda answer: as_asked(answer["predictions"])),
        "gateway": Target(
            arguments.gateway,
            path,
            body,
            lambda answer: as_asked(answer["predictions"]),
            {"Authorization": f"Bearer {token}"},
        ),
    }
    found: dict[tuple[str, int, int], Load] = {}
    for round_ in range(-1, arguments.rounds):
        for clients in arguments.clients:
            for name, target in targets.items():
                load = _under_load(target, clients, arguments.seconds)
                if round_ >= 0:
                    found.setdefault((name, 0, clients), Load()).add(load)
    _print_loads(found)
    for clients in arguments.clients:
        ratio = found["gateway", 0, clients].quantile(0.5) / found["direct", 0, clients].quantile(0.5)
        print(f"Gateway / direct, p50 at {clients} client(s): {_verdict(ratio, _TARGET_GATEWAY)}")


def _print_head(arguments: argparse.Namespace) -> None:
    packages = ("mlflow", "uvicorn", "pandas", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, {platform.machine()},", end=" "
    )
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}; {HISTORY} hours of one sensor,")
    print(f"{AHEAD} h ahead; {arguments.rounds} rounds of {arguments.seconds:g} s in turn.\n", flush=True)


def _print_servers(servers: Mapping[tuple[str, int], Server], idle: Mapping[tuple[str, int], float]) -> None:
    print("| server | workers | cold start [s] | memory [MB] | after the load [MB] |\n|---|---:|---:|---:|---:|")
    for (name, workers), server in servers.items():
        key = name, workers
        print(f"| {name} | {workers} | {server.started_in:.1f} | {idle[key]:.0f} | {_memory(server):.0f} |")
    print(flush=True)


def _print_loads(found: Mapping[tuple[str, int, int], Load]) -> None:
    print("| server | workers | clients | requests/s | p50 [ms] | p99 [ms] | failed | wrong |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (name, workers, clients), load in sorted(found.items(), key=lambda item: (item[0][1:], item[0][0])):
        numbers = f"{load.per_second():.1f} | {load.quantile(0.5):.1f} | {load.quantile(0.99):.1f}"
        print(f"| {name} | {workers or '–'} | {clients} | {numbers} | {len(load.failures)} | {load.wrong} |")
    print(flush=True)


def _print_ratios(found: Mapping[tuple[str, int, int], Load]) -> None:
    for workers, clients in sorted({key[1:] for key in found}):
        ours, echo, plain = (found[name, workers, clients] for name in (_OURS, _ECHO, _PLAIN))
        slower = ours.quantile(0.5) / echo.quantile(0.5)
        fewer = echo.per_second() / ours.per_second()
        print(
            f"{workers} worker(s), {clients} client(s): load model / echo, p50 {_verdict(slower, _TARGET_ECHO)}; "
            f"echo / load model, requests/s {_verdict(fewer, _TARGET_ECHO)}; "
            f"load model / plain forest, p50 {ours.quantile(0.5) / plain.quantile(0.5):.2f}"
        )
    print(flush=True)


def _verdict(ratio: float, target: float) -> str:
    return f"{ratio:.2f} (target ≤ {target:g}: {'met' if ratio <= target else 'missed'})"


# ------------------------------------------------------------------------------------------- soak and faults


def _soak(model: Path, folder: Path, seconds: float) -> None:
    """Print failures and memory over a long time at 8 clients."""
    with served(model, folder, 1) as server:
        target, load, memory = _only_first_answer(_target(_OURS, server.port)), Load(), []
        parts = 10
        for _ in range(parts):
            load.add(_under_load(target, 8, seconds / parts))
            memory.append(_memory(server))
    grown = memory[-1] / memory[0] - 1
    print(
        f"{seconds:g} s at 8 clients, 1 worker: {len(load.spent)} answers, {load.per_second():.1f} a second, "
        f"p99 {load.quantile(0.99):.0f} ms, {len(load.failures)} failed, {load.wrong} wrong; memory after each tenth "
        f"[MB]: {', '.join(f'{m:.0f}' for m in memory)} ({grown:+.1%} from the first to the last)\n",
        flush=True,
    )


def _kill_worker(model: Path, folder: Path) -> None:
    """Kill one of two workers under load; uvicorn starts another one."""
    with served(model, folder, 2) as server:
        target = _only_first_answer(_target(_OURS, server.port))
        before = _workers(server)
        timer = threading.Timer(5.0, lambda: os.kill(before[0].pid, signal.SIGKILL))
        timer.start()
        load = _under_load(target, 8, 40.0)
        after = [process.pid for process in _workers(server)]
    kinds = ", ".join(sorted({failure.split(":")[0] for failure in load.failures})) or "none"
    print(
        f"kill -9 of one of 2 workers at 8 clients: {len(load.spent)} answers, {load.wrong} wrong, "
        f"{len(load.failures)} failed ({kinds}); workers before {len(before)}, after {len(after)}, "
        f"the killed one {'still there' if before[0].pid in after else 'replaced'}\n",
        flush=True,
    )


def _workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [process for process in children if "spawn_main" in " ".join(process.cmdline())]


@contextmanager
def _database(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a database; gives its URL and the script that runs it."""
    data = Path(tempfile.mkdtemp(prefix="smartgrid-history-"))
    data.chmod(0o755)
    command = [str(_REPOSITORY / "deploy" / "local" / "postgres.sh"), str(data), "6543"]
    script = subprocess.Popen(
        command,
        env=os.environ | {"POSTGRES_PASSWORD": "trial"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout
    try:
        url = next(line for line in script.stdout if line.startswith("ready ")).split()[1]
        yield url.replace("smartgrid@", "smartgrid:trial@"), script
    finally:
        script.terminate()
        script.wait(timeout=60)


def _fill(url: str, sensor: str, hours: int = 800) -> None:
    import psycopg

    with psycopg.connect(url) as database:
        database.execute((_REPOSITORY / "deploy" / "postgres" / "sensor_data.sql").read_text(encoding="utf-8"))
        database.execute(
            "INSERT INTO sensor_data (sensor_id, sensor_type, timestamp, value) SELECT %s, 'power', t, "
            "100 + 20 * sin(extract(epoch FROM t) / 86400 * 2 * pi()) + random() "
            "FROM generate_series(now() - %s * interval '1 hour', now(), interval '15 min') t",
            (sensor, hours),
        )


def _kill_history(model: Path, folder: Path) -> None:
    """Kill the database that a server reads; ask until it has noticed, and print what it then says."""
    with _database(folder) as (url, script):
        _fill(url, "fresh meter")
        with served(model, folder, 1, SMARTGRID_HISTORY=url) as server:
            body = json.dumps({"dataframe_records": [{"sensor_id": "fresh meter"}]}).encode()
            address = f"http://127.0.0.1:{server.port}"
            target = Target(address, "/invocations", body, lambda answer: len(answer["predictions"]) == AHEAD)
            before, reasons = _reasons(target)
            for process in psutil.Process(script.pid).children(recursive=True):
                process.kill()
            load = _under_load(target, 8, _INTERVAL + 15.0)
            after, told = _reasons(target)
    print(
        f"kill -9 of the database of history at 8 clients: {len(load.spent)} answers in {load.seconds:.0f} s, "
        f"{len(load.failures)} failed, p99 {load.quantile(0.99):.0f} ms; forecasts "
        f"{'unchanged' if before == after else 'changed'}; reason before: {reasons}; after: {told}\n",
        flush=True,
    )


def _reasons(target: Target) -> tuple[Sequence[float], list[str | None]]:
    connection = _connect(target)
    connection.request("POST", target.path, target.body, {"Content-Type": "application/json"})
    rows = json.loads(connection.getresponse().read())["predictions"]
    return [row["predicted_load"] for row in rows], sorted({row["reason"] for row in rows}, key=str)


if __name__ == "__main__":
    sys.exit(main())
