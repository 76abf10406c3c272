"""The platform: tracking server, registry, artifacts, databases and the object store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from smartgrid_pyfunc.doctor.examination import Check, Finding, State
from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import bounded_wait, check_reachable, plain_errors
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError

EXPERIMENT = "smartgrid-doctor"
_SHOWN = 4
_CONNECT_SECONDS = 10


def checks(data: str) -> list[Check]:
    """Return the checks of what MLflow stands on; `data` is the training data that somebody wants to use."""
    return [
        Check("tracking server", _tracking),
        Check("registry", _registry),
        Check("artifacts", _artifacts, seconds=90),
        Check("database", lambda: _databases(data)),
        Check("object store", lambda: _object_store(data)),
    ]


def _tracking() -> Finding:
    uri = mlflow.get_tracking_uri()
    with bounded_wait(), plain_errors("ask the tracking server"):
        check_reachable()
        experiments = len(mlflow.MlflowClient().search_experiments())
        theirs = _server_version(uri)
    said = f"{mask_secrets(uri)}, {experiments} experiments"
    if theirs and theirs != mlflow.__version__:
        remedy = f"pip install mlflow=={theirs}, or bring the server to {mlflow.__version__}"
        return Finding(
            "tracking server", State.WARNING, f"{said}; it runs mlflow {theirs}, this is {mlflow.__version__}", remedy
        )
    return Finding("tracking server", State.OK, said)


def _server_version(uri: str) -> str | None:
    if not uri.startswith("http"):
        return None
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(get_default_host_creds(uri), "/version", "GET")  # type: ignore[no-untyped-call]
    return answer.text.strip() if answer.status_code == 200 else None


def _registry() -> Finding:
    """Stage and alias are one thing here: where they disagree, a promotion was cut short or done by hand."""
    wrong = []
    with bounded_wait(), plain_errors("ask the registry"):
        models = {entry.name for entry in mlflow.search_registered_models()}
        for name in sorted({LOAD_MODEL, ANOMALY_MODEL} & models):
            wrong += registry.inconsistencies(name)
    if wrong:
        remedy = "mlflow run . -e promote -P model=… (any promotion of the model mends its aliases)"
        return Finding("registry", State.FAILED, "; ".join(wrong), remedy)
    return Finding("registry", State.OK, f"{len(models)} models; stages and aliases agree")


def _artifacts() -> Finding:
    """Write, read and delete one, the way a training does."""
    content = uuid.uuid4().hex
    with bounded_wait(), plain_errors("write, read and delete an artifact"), _throwaway_run() as run:
        mlflow.MlflowClient().log_text(run.info.run_id, content, "doctor.txt")
        store = get_artifact_repository(run.info.artifact_uri)
        read = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/doctor.txt")
        if read != content:
            raise LifecycleError(
                f"An artifact came back with {len(read)} characters of {len(content)}; "
                "check the artifact store: it does not keep what it is given"
            )
        if not _deleted(store, "doctor.txt"):
            said, remedy = "written and read, but not deleted", "nothing, unless `mlflow gc` is to free space"
            return Finding("artifacts", State.WARNING, said, remedy)
    return Finding("artifacts", State.OK, f"written, read and deleted in {mask_secrets(run.info.artifact_uri)}")


def _deleted(store: ArtifactRepository, path: str) -> bool:
    try:
        store.delete_artifacts(path)  # type: ignore[no-untyped-call]
    except (MlflowException, OSError):  # requests' errors are of the second kind
        return False
    return all(entry.path != path for entry in store.list_artifacts())


@contextmanager
def _throwaway_run() -> Iterator[mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    run = client.create_run(experiment, run_name="artifact round trip")
    try:
        yield run
        client.set_terminated(run.info.run_id)
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    finally:
        client.delete_run(run.info.run_id)


# ----------------------------------------------------------------------------------------------- beside MLflow


def _databases(data: str) -> Finding:
    used = {
        "tracking": mlflow.get_tracking_uri(),
        "SMARTGRID_HISTORY": os.environ.get("SMARTGRID_HISTORY", ""),
        "data": data,
    }
    used = {purpose: uri for purpose, uri in used.items() if uri.startswith("postgres")}
    if not used:
        return Finding("database", State.UNUSED, "no postgresql:// address is in use")
    said = [f"{purpose}: {_server_of(purpose, uri)}" for purpose, uri in used.items()]
    return Finding("database", State.OK, "; ".join(said))


def _server_of(purpose: str, uri: str) -> str:
    import psycopg

    parts = urlsplit(uri)
    plain = parts._replace(scheme="postgresql", query="").geturl()
    try:
        with psycopg.connect(plain, connect_timeout=_CONNECT_SECONDS) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        reason = mask_secrets(str(error).strip().splitlines()[0])
        raise InputError(
            "the database must answer",
            place=purpose,
            found=reason,
            remedy="start it, or mend host, port, user (in the URL) and password (PGPASSWORD)",
        ) from None
    return f"PostgreSQL {version // 10000}.{version % 10000} at {parts.hostname}:{parts.port or 5432}"


def _object_store(data: str) -> Finding:
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL", "")
    bucket = urlsplit(data).netloc if data.startswith("s3://") else ""
    if not (endpoint or bucket):
        return Finding("object store", State.UNUSED, "neither MLFLOW_S3_ENDPOINT_URL nor s3:// data is in use")
    import boto3
    from botocore.config import Config

    settings = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    client = boto3.client("s3", endpoint_url=endpoint or None, config=settings)
    try:
        if bucket:
            client.head_bucket(Bucket=bucket)
            return Finding("object store", State.OK, f"{endpoint or 'Amazon'}, bucket {bucket}")
        names = [entry["Name"] for entry in client.list_buckets()["Buckets"]]
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        remedy = (
            "start it; check MLFLOW_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's name"
        )
        return Finding("object store", State.FAILED, f"{endpoint or 'Amazon'}: {reason}", remedy)
    return Finding("object store", State.OK, f"{endpoint or 'Amazon'}, buckets: {', '.join(names[:_SHOWN]) or 'none'}")
