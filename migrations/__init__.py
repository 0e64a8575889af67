"""The schema's history; run by `services.core.db.migrate`."""
