"""Posteriors in files that need neither their model nor its data."""

from funcvi.files.posteriors import load_posterior, save_posterior

__all__ = ["load_posterior", "save_posterior"]
