"""Prometheus' and Alertmanager's configuration, by their own tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((DEPLOY / "rules.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_how_bad_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert {"summary", "value", "command", "description"} <= rule["annotations"].keys()
    assert rule.get("labels", {"severity": "of the gauge"})["severity"] in {"critical", "warning", "of the gauge"}


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package}")
    return found


@pytest.mark.integration
def test_prometheus_takes_the_configuration_and_its_rules_keep_their_promises() -> None:
    tool = _tool("promtool", "prometheus")
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([tool, *arguments], cwd=DEPLOY, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_alertmanager_takes_the_configuration(tmp_path: Path) -> None:
    tool = _tool("amtool", "prometheus-alertmanager")
    # Debian 12's Alertmanager knows no url_file yet.
    text = (DEPLOY / "alertmanager.yml").read_text()
    assert text.count("url_file: /run/secrets/webhook") == 1
    known = tmp_path / "alertmanager.yml"
    known.write_text(text.replace("url_file: /run/secrets/webhook", "url: http://127.0.0.1:9/"))
    done = subprocess.run([tool, "check-config", str(known)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
