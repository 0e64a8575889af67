"""The worker: claims jobs, runs models in processes of their own, writes results."""
