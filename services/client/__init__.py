"""The `segint` command and a small Python client: what a workstation and an administrator use."""
