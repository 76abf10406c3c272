"""Arrays in, numbers out: metrics, baselines, backtests, calibration."""
