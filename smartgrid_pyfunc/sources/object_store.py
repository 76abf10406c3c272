"""Training data from an S3 bucket: brought into a temporary folder first, where files are judged as any others."""

from __future__ import annotations

import fnmatch
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources.files import SUFFIXES

_SCHEME = "s3://"
_WILD = "*?["
_REMEDY = "write s3://bucket/folder or s3://bucket/folder/*.parquet"
_ACCESS = (
    "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a store that is not Amazon's, MLFLOW_S3_ENDPOINT_URL; "
    "check the bucket's name and the account's rights"
)


def is_address(data: str) -> bool:
    """Return whether `data` names objects in an S3 bucket."""
    return data.strip().lower().startswith(_SCHEME)


@contextmanager
def downloaded(
    data: str, say: Callable[[str], None], *, most_files: int | None = None
) -> Iterator[tuple[str, Callable[[Path], str]]]:
    """Bring the CSV and Parquet objects that `data` names into a folder that is gone when the block ends.

    Credentials are those of the environment, a shared file or the machine's role, as boto3 finds them.

    Parameters
    ----------
    data : str
        ``s3://bucket/folder``, an object, or a pattern of objects; ``**`` stands for any folders.
    say : callable
        Called with one sentence.
    most_files : int, optional
        Bring no more than so many: enough to look at their columns.

    Yields
    ------
    folder : str
        Errors of its files name the objects.
    name_of : callable
        The address of the object that a file of the folder is.

    Raises
    ------
    InputError
        If the store does not answer or nothing matches.
    """
    bucket, _, pattern = data.strip()[len(_SCHEME) :].partition("/")
    if not bucket:
        raise InputError("data must name a bucket", found=data, remedy=_REMEDY)
    with tempfile.TemporaryDirectory(prefix="smartgrid-s3-") as folder:
        _download(bucket, pattern, Path(folder), say, most_files)
        try:
            yield folder, lambda path: str(path).replace(folder, f"{_SCHEME}{bucket}", 1)
        except InputError as error:
            place = error.place.replace(folder, f"{_SCHEME}{bucket}")
            raise InputError(error.rule, place=place, found=error.found, remedy=error.remedy) from None


def _download(bucket: str, pattern: str, folder: Path, say: Callable[[str], None], most: int | None) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    place = f"{_SCHEME}{bucket}/{pattern}"
    try:
        client = boto3.session.Session().client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
        objects = _matching(_list(client, bucket, pattern), pattern)[:most]
        if not objects:
            raise InputError("data must match at least one CSV or Parquet object", place=place, found="none")
        say(f"Fetching {len(objects)} object(s), {sum(size for _, size in objects) / 1e6:,.1f} MB, from {place}")
        for key, _ in objects:
            target = _inside(folder, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
    except (BotoCoreError, ClientError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError("the object store must answer", place=place, remedy=f"{_ACCESS}; it said: {reason}") from None


def _list(client: Any, bucket: str, pattern: str) -> list[tuple[str, int]]:
    """Return key and size [bytes] of the objects below the part of `pattern` that has no wildcard."""
    fixed = pattern[: min((pattern.index(sign) for sign in _WILD if sign in pattern), default=len(pattern))]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=fixed)
    return [(found["Key"], int(found["Size"])) for page in pages for found in page.get("Contents", [])]


def _matching(objects: Sequence[tuple[str, int]], pattern: str) -> list[tuple[str, int]]:
    """Return those that `pattern` names, an object, a folder or a glob, in the order of their keys."""
    wild = any(sign in pattern for sign in _WILD)
    below = pattern.rstrip("/") + "/" if pattern.strip("/") else ""

    def meant(key: str) -> bool:
        if not key.lower().endswith(SUFFIXES):
            return False
        return _fits(key.split("/"), pattern.split("/")) if wild else key == pattern or key.startswith(below)

    return sorted((key, size) for key, size in objects if meant(key))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match path and pattern part by part, as the shell does; ``**`` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _inside(folder: Path, key: str) -> Path:
    """Return the file for an object's key; a key with ``..`` must not leave the folder."""
    target = (folder / key.lstrip("/")).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError("an object's key must not leave its folder", found=key, remedy="rename the object")
    return target
