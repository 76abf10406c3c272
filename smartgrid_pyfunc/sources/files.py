"""Which files a ``data`` parameter means."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from smartgrid_pyfunc.schema import InputError

SUFFIXES = (".csv", ".csv.gz", ".parquet")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_REMEDY = "give a CSV or Parquet file, a glob, a folder or 'demo'"


@dataclass(frozen=True)
class FileSet:
    """The files to read, in a fixed order, and what was passed over while looking for them."""

    paths: tuple[Path, ...]
    skipped: tuple[Path, ...]
    partition_keys: tuple[str, ...]


def find_files(data: str) -> FileSet:
    """Return the CSV and Parquet files that `data` stands for.

    Raises
    ------
    InputError
        If nothing matches, the file has another suffix, or `data` is an address such as ``https://``.
    """
    if _SCHEME.match(data):
        raise InputError("data must be a path or an address s3://… or postgresql://…", found=data, remedy=_REMEDY)
    root = _demo_folder() if data == "demo" else Path(data).expanduser()
    candidates = _candidates(root, data)
    paths = tuple(path for path in candidates if _is_supported(path))
    if not paths:
        raise _no_file(data, candidates)
    skipped = tuple(path for path in candidates if not _is_supported(path))
    return FileSet(paths, skipped, _partition_keys(root, paths))


def _demo_folder() -> Path:
    # Imported here: whoever reads files need not load the simulator.
    from smartgrid_pyfunc.simulation import demo_folder

    return Path(demo_folder())


def _candidates(root: Path, data: str) -> list[Path]:
    if not data.strip() or "\0" in data:
        raise InputError("data must name a file or folder", found=repr(data), remedy=_REMEDY)
    # A name that exists is that file even if it contains the characters of a glob.
    if root.is_dir():
        return _below(root)
    if root.exists():
        return [root]
    return [Path(name) for name in sorted(glob.glob(str(root), recursive=True)) if not Path(name).is_dir()]


def _below(folder: Path) -> list[Path]:
    """Files at any depth, without hidden ones such as those of notebooks and version control."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _is_supported(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _no_file(data: str, candidates: list[Path]) -> InputError:
    if candidates:
        names = ", ".join(path.name for path in candidates)
        return InputError("data must be CSV (.csv, .csv.gz) or Parquet (.parquet)", place=data, found=names)
    return InputError("data must match at least one CSV or Parquet file", place=data, found="none", remedy=_REMEDY)


def _partition_keys(root: Path, paths: tuple[Path, ...]) -> tuple[str, ...]:
    """Names of ``key=value`` folders below `root`: the layout of partitioned tables."""
    keys = set()
    for path in paths:
        parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts
        keys |= {part.split("=", 1)[0] for part in parts[:-1] if "=" in part}
    return tuple(sorted(keys))
