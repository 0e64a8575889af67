"""The HTTP service: Velocity's wire in front of PostgreSQL and the mounted volume."""
