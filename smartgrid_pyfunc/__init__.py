"""Smart-grid models for MLflow: load forecasting and anomaly detection."""

__version__ = "0.1.0"
