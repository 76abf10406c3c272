"""Watching a model in use: forecasts and flags joined with what then happened, and the data that go in.

`examine` and everything it calls are pure functions of frames; `run` talks to MLflow, `delivery` to webhooks and a
Pushgateway.
"""
