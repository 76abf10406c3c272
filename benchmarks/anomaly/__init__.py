"""One small adapter per detector, and the readings that all of them get.

An adapter is a module with ``create(options)``, which returns an object with

- ``fit(train, timezone)``: learn from readings without labels;
- ``score(readings, asked)``: the score of the readings at which ``asked`` is true, higher = stranger; the others are
  earlier readings of the same sensors, and a reading's score may depend on itself and on earlier ones only;
- ``flags(rate)``: which of the readings just scored it would flag at a nominal share ``rate`` of false alarms;
- ``packages``: the distributions whose versions are recorded.

Ours may also have ``p_values()`` of the readings just scored. The modules run in different environments: they import
their own library, numpy and pandas, and what is here.
"""
