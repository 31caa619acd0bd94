"""Objectives at random against brute force: laws, their oracles, cases, and the run."""
