"""Backup and restore of a deployment: its database, then its volume, in one file."""
