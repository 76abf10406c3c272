"""One small adapter per forecasting library, and the task that all of them get.

An adapter is a module with ``create(options)``, which returns an object with

- ``fit(task)``: learn from `task.train` only;
- ``forecast(task, day)``: forecast the 24 hours of that day of the window (0, 1, …, in order) for every sensor, from
  what was observed before its midnight; a frame ``sensor_id, timestamp, predicted`` (times naive, UTC), for ours also
  ``lower, upper``;
- ``packages``: the distributions whose versions are recorded.

The modules run in different environments: they import their own library, numpy and pandas, nothing else.
"""
