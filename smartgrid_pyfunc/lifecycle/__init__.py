"""Everything that talks to MLflow tracking and the model registry."""
