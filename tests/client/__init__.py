"""What a workstation does: scans, contact sheets, the API client, the files of a segmentation."""
