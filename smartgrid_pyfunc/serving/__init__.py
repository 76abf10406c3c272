"""One machine's serving: model servers, the gateway before them, and what keeps both running."""
