"""Copies of finished artefacts outside the workspace: on another claim, in a bucket, on the Hub."""
