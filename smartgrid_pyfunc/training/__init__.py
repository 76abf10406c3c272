"""From data to a registered version: what each training entry point does, step by step."""
