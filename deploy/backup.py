"""Back up a tracking server's database and artifacts together, and restore them elsewhere.

    python deploy/backup.py backup FOLDER
    python deploy/backup.py restore FOLDER

Both use the variables of the tracking server: MLFLOW_BACKEND_STORE_URI (PostgreSQL; password in it or PGPASSWORD) and
MLFLOW_ARTIFACTS_DESTINATION (s3://bucket/prefix with MLFLOW_S3_ENDPOINT_URL and AWS_…, or a folder). The programs
pg_dump and pg_restore must be of the database's version or newer.

The database goes first. A file is stored before the database names it, so whatever the dump names is in the store when
the files are copied after it; runs that end meanwhile are in the next backup. Only `mlflow gc`, which deletes files,
must not run at the same time. A backup appears under its name when it is whole; what breaks off leaves FOLDER.partial.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

import click

_DUMP, _FILES, _LIST = "database.dump", "artifacts", "SHA256SUMS.json"
_BLOCK = 1 << 20


class Store(Protocol):
    """Where artifacts are."""

    def names(self) -> Iterator[str]:
        """Yield the names of all files, below the destination."""

    def fetch(self, name: str, target: Path) -> None:
        """Write the file `name` to `target`."""

    def keep(self, source: Path, name: str) -> None:
        """Store `source` as `name`."""


class Folder:
    """Artifacts in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> Iterator[str]:
        for path in sorted(self._root.rglob("*")):
            if path.is_file():
                yield path.relative_to(self._root).as_posix()

    def fetch(self, name: str, target: Path) -> None:
        shutil.copyfile(self._root / name, target)

    def keep(self, source: Path, name: str) -> None:
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self._root / name)


class Bucket:
    """Artifacts in an S3 bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3

        self._client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""

    def names(self) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self._prefix)

    def fetch(self, name: str, target: Path) -> None:
        self._client.download_file(self._bucket, self._prefix + name, str(target))

    def keep(self, source: Path, name: str) -> None:
        self._client.upload_file(str(source), self._bucket, self._prefix + name)


def open_store(destination: str) -> Store:
    """Return the store at ``s3://bucket/prefix``, ``file:///folder`` or ``/folder``."""
    parts = urlsplit(destination)
    if parts.scheme == "s3":
        return Bucket(parts.netloc, parts.path.strip("/"))
    if parts.scheme in ("", "file"):
        return Folder(Path(parts.path))
    raise click.ClickException(f"artifacts must be in s3:// or a folder, not in {parts.scheme}://")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


# ----------------------------------------------------------------------------------------------- both ways


def back_up(database: str, store: Store, folder: Path) -> int:
    """Write dump, files and their digests into `folder`, which must not exist; return the number of files."""
    if folder.exists():
        raise click.ClickException(f"{folder} exists; name a new folder, so that no good backup is replaced.")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={partial / _DUMP}", f"--dbname={database}")
    digests = {_DUMP: digest(partial / _DUMP)}
    for number, name in enumerate(store.names(), 1):
        target = partial / _FILES / _safe(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(name, target)
        digests[f"{_FILES}/{name}"] = digest(target)
        if number % 500 == 0:
            click.echo(f"{number} files", err=True)
    (partial / _LIST).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    partial.rename(folder)
    return len(digests) - 1


def restore(database: str, store: Store, folder: Path) -> int:
    """Fill an empty database and a store from a whole backup; return the number of files."""
    digests = verify(folder)
    if _tables(database):
        raise click.ClickException("the database is not empty; restore into a new one, so that nothing is overwritten.")
    # Files first: whoever reads the database while it fills finds what it names.
    names = [name.removeprefix(f"{_FILES}/") for name in digests if name != _DUMP]
    for name in names:
        store.keep(folder / _FILES / _safe(name), name)
    _run(
        "pg_restore",
        "--no-owner",
        "--exit-on-error",
        "--single-transaction",
        f"--dbname={database}",
        str(folder / _DUMP),
    )
    return len(names)


def verify(folder: Path) -> dict[str, str]:
    """Return the digests of a backup after holding every file against its own."""
    try:
        digests: dict[str, str] = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise click.ClickException(f"{folder} is no whole backup: {_LIST} is missing.") from None
    wrong = [name for name, known in digests.items() if not (folder / name).is_file() or digest(folder / name) != known]
    if wrong:
        raise click.ClickException(f"{folder} is damaged: {', '.join(wrong[:3])}; use another backup.")
    return digests


def _safe(name: str) -> str:
    """Return `name`; a name that leads out of its folder ends everything."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise click.ClickException(f"the artifact {name!r} has a name that leads out of its folder.")
    return name


def _tables(database: str) -> int:
    import psycopg

    with psycopg.connect(database, connect_timeout=10) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    return int(found[0]) if found else 0


def _run(program: str, *arguments: str) -> None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise click.ClickException(f"{program} is missing: apt-get install postgresql-client") from None
    if done.returncode:
        raise click.ClickException(f"{program} failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")


def _plain(uri: str) -> str:
    """Return the address for libpq; the password goes where no list of processes shows it."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("postgres"):
        raise click.ClickException(
            "MLFLOW_BACKEND_STORE_URI must be postgresql://…; copy an SQLite file with `sqlite3 mlflow.db .backup`."
        )
    if parts.password:
        os.environ["PGPASSWORD"] = unquote(parts.password)
    user = f"{parts.username}@" if parts.username else ""
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(scheme="postgresql", netloc=user + place).geturl()


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.argument("action", type=click.Choice(["backup", "restore", "verify"]))
@click.argument("folder", type=click.Path(path_type=Path))
def main(action: str, folder: Path) -> None:
    """Do what was asked and say how much it was."""
    if action == "verify":
        click.echo(f"{len(verify(folder)) - 1} files and the database's dump are whole.")
        return
    try:
        database = _plain(os.environ["MLFLOW_BACKEND_STORE_URI"])
        store = open_store(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    except KeyError as missing:
        raise click.ClickException(f"set {missing.args[0]}, as for the tracking server.") from None
    count = (back_up if action == "backup" else restore)(database, store, folder.absolute())
    click.echo(
        f"{count} files and the database: {folder}"
        if action == "backup"
        else f"{count} files and the database restored."
    )


if __name__ == "__main__":
    sys.exit(main())
