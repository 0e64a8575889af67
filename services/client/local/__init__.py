"""Local mode: the whole service on one machine, from wheels alone, under one data directory."""
