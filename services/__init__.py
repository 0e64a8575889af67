"""SegInt: an on-premise auto-segmentation server. For research, not for clinical use."""
