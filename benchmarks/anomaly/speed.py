"""placeholder"""
from pathlib import Path


def speed_table(output: Path, fit_10m: bool) -> str:
    return ""
