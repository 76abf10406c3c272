# The tracking server: MLflow with the drivers of its database and its store. Built in the repository's root.
FROM python:3.11.7-slim-bookworm
COPY requirements.txt requirements-dev.txt /tmp/pins/
# Pins are those of the project: only what a server needs of them.
RUN grep -hE '^(mlflow|SQLAlchemy|psycopg|psycopg-binary|boto3|botocore|Flask-WTF)==' /tmp/pins/*.txt > /tmp/pins/server.txt \
    && pip install --no-cache-dir -r /tmp/pins/server.txt \
    && rm -r /tmp/pins \
    && useradd --uid 10001 --create-home mlflow \
    && install -d -o mlflow -g mlflow /var/lib/mlflow
COPY deploy/docker/accounts.ini /etc/mlflow/accounts.ini
COPY deploy/local/accounts.py /opt/smartgrid/accounts.py
USER 10001:10001
WORKDIR /var/lib/mlflow
EXPOSE 5005
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5005"]
