"""What a role does when versions change, servers end, hang or never start; on a clock that the test sets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smartgrid_pyfunc.serving.model_server import Served
from smartgrid_pyfunc.serving.role import Place, Role

PLACE = Place("LoadForecastingModel", "Production", "champion", 5101)
OPTIONAL = Place("LoadForecastingModel", "Staging", "challenger", 5102, optional=True)


@dataclass
class Server:
    """Stands for a model server: the test says whether it runs and answers."""

    served: Served
    port: int
    running: bool = True
    ready: bool = False
    works: bool = True
    stopped: bool = False
    log: Path = Path("server.log")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        return self.running and self.ready

    def warm_up(self, seconds: float) -> bool:
        return self.works

    def said(self) -> str:
        return "first line\nlast line"

    def stop(self) -> None:
        self.running, self.stopped = False, True


@dataclass
class Stage:
    """A role and every server it started."""

    place: Place = PLACE
    started: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        def start(served: Served, port: int) -> Any:
            self.started.append(Server(served, port))
            return self.started[-1]

        self.role = Role(self.place, start, startup=100, timeout=10)

    @property
    def versions(self) -> list[str]:
        return [server.served.version for server in self.started]

    def serving(self, version: str = "1", now: float = 0.0) -> Server:
        """Bring the role to serve a version."""
        self.role.tick(now, version)
        self.started[-1].ready = True
        self.role.tick(now, version)
        assert self.role.serving is self.started[-1]
        return self.started[-1]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_server_counts_only_when_it_answers(stage: Stage) -> None:
    stage.role.tick(0, "1")
    stage.role.tick(1, "1")
    assert (stage.role.serving, stage.versions) == (None, ["1"])
    stage.started[0].ready = True
    stage.role.tick(2, "1")
    assert stage.role.serving is stage.started[0]


def test_nothing_starts_while_no_version_is_wanted(stage: Stage) -> None:
    stage.role.tick(0, None)
    assert stage.started == []


def test_the_former_version_serves_until_the_new_one_answers_and_is_handed_over_running(stage: Stage) -> None:
    old = stage.serving("1")
    assert stage.role.tick(1, "2") == []
    assert stage.role.serving is old
    stage.started[1].ready = True
    assert stage.role.tick(2, "2") == [old]
    assert (stage.role.serving, old.stopped) == (stage.started[1], False)
    assert stage.role.tick(3, "2") == []


def test_a_new_version_that_fails_leaves_the_former_serving(stage: Stage) -> None:
    old = stage.serving("1")
    stage.role.tick(1, "2")
    stage.started[1].running = False
    stage.role.tick(2, "2")
    assert (stage.role.serving, stage.started[1].stopped) == (old, True)


def test_a_version_that_fails_on_its_first_request_is_not_used(stage: Stage) -> None:
    old = stage.serving("1")
    stage.role.tick(1, "2")
    stage.started[1].ready, stage.started[1].works = True, False
    stage.role.tick(2, "2")
    assert (stage.role.serving, stage.started[1].stopped) == (old, True)


def test_a_server_that_never_answers_is_given_up(stage: Stage) -> None:
    stage.role.tick(0, "1")
    stage.role.tick(100, "1")
    assert not stage.started[0].stopped
    stage.role.tick(101, "1")
    assert stage.started[0].stopped


def test_pauses_between_attempts_double_to_a_minute(stage: Stage) -> None:
    starts, now = [], 0.0
    while now < 400:
        before = len(stage.started)
        stage.role.tick(now, "1")
        if len(stage.started) > before:
            starts.append(now)
            stage.started[-1].running = False
        now += 0.5
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert [round(gap) for gap in gaps[:7]] == pytest.approx([2, 2, 4, 8, 16, 32, 60], abs=1)
    assert max(gaps) <= 61


def test_a_server_that_ends_is_started_again(stage: Stage) -> None:
    stage.serving("1", now=0)
    stage.started[0].running = False
    stage.role.tick(10, "1")
    assert (stage.role.serving, stage.started[0].stopped) == (None, True)
    stage.role.tick(10.5, "1")
    assert len(stage.started) == 1
    stage.role.tick(11.1, "1")
    assert stage.versions == ["1", "1"]


def test_after_a_steady_time_the_pause_is_short_again(stage: Stage) -> None:
    now = 0.0
    for _ in range(4):
        stage.serving("1", now=now)
        stage.started[-1].running = False
        stage.role.tick(now, "1")
        now += 100
    stage.serving("1", now=now)
    now += 1000
    stage.started[-1].running = False
    stage.role.tick(now, "1")
    count = len(stage.started)
    stage.role.tick(now + 1.1, "1")
    assert len(stage.started) == count + 1


def test_one_missed_ping_is_no_end_but_six_in_a_row_are(stage: Stage) -> None:
    server = stage.serving("1")
    server.ready = False
    for k in range(1, 6):
        stage.role.tick(5.1 * k, "1")
    assert stage.role.serving is server
    server.ready = True
    stage.role.tick(5.1 * 6, "1")
    server.ready = False
    for k in range(7, 12):
        stage.role.tick(5.1 * k, "1")
    assert stage.role.serving is server
    stage.role.tick(5.1 * 12, "1")
    assert (stage.role.serving, server.stopped) == (None, True)


def test_a_stage_without_version_keeps_the_champion_and_ends_the_challenger() -> None:
    champion, challenger = Stage(), Stage(OPTIONAL)
    kept, ended = champion.serving("1"), challenger.serving("1")
    assert champion.role.tick(1, None) == []
    assert champion.role.serving is kept
    assert challenger.role.tick(1, None) == [ended]
    assert challenger.role.serving is None
    assert challenger.role.address is None


def test_a_version_replaced_while_it_starts_is_followed_by_the_newest(stage: Stage) -> None:
    stage.serving("1")
    stage.role.tick(1, "2")
    stage.role.tick(2, "3")
    stage.started[1].ready = True
    stage.role.tick(3, "3")
    stage.started[2].ready = True
    leaving = stage.role.tick(4, "3")
    assert stage.versions == ["1", "2", "3"]
    assert [server.served.version for server in leaving] == ["2"]


def test_stopping_ends_what_serves_and_what_starts(stage: Stage) -> None:
    stage.serving("1")
    stage.role.tick(1, "2")
    stage.role.stop()
    assert all(server.stopped for server in stage.started)


def test_the_message_names_version_reason_and_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.role.tick(0, "1")
    stage.started[0].running = False
    stage.role.tick(1, "1")
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "champion of LoadForecastingModel, version 1, ended while it started" in record.message
    assert "server.log ends: last line" in record.message
