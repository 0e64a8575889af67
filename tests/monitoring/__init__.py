"""Metrics as Prometheus sees them, the dashboard, and the alerts."""
