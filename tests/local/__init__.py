"""Local mode, with real processes."""
