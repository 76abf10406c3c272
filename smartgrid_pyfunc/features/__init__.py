"""Features, defined once: pure numpy and pandas, no input or output."""
