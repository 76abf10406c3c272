# Model servers and gateway, as `mlflow run . -e serve` starts them. Built in the repository's root.
FROM python:3.11.7-slim-bookworm
# Versions of Debian's packages are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx-light libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /opt/smartgrid/
RUN pip install --no-cache-dir -r /opt/smartgrid/requirements.txt \
    && useradd --uid 10001 --create-home smartgrid \
    && install -d -o smartgrid -g smartgrid /var/lib/smartgrid
COPY smartgrid_pyfunc /opt/smartgrid/smartgrid_pyfunc
COPY entrypoints /opt/smartgrid/entrypoints
COPY deploy/gateway /opt/smartgrid/deploy/gateway
USER 10001:10001
WORKDIR /opt/smartgrid
ENV GIT_PYTHON_REFRESH=quiet
EXPOSE 5000
CMD ["python", "entrypoints/serve.py", "--host", "0.0.0.0", "--port", "5000", "--tokens", "/run/secrets/tokens", "--folder", "/var/lib/smartgrid"]
