"""Instruments: readings of a run, and functions on a point."""
