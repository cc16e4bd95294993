"""Runners belong to the oracles' environments: here their SDKs cannot be imported."""

collect_ignore_glob = ["*_runner.py"]
