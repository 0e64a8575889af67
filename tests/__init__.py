"""Tests run against real servers, processes and signals; only what cannot exist on a build machine is imitated."""
