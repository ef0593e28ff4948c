"""Instruments: transformations that measure a run, and functions that examine a point."""
