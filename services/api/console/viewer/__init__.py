"""The scan viewer: a job's volumes with its masks as overlays, in a browser. For research, not for clinical use."""
