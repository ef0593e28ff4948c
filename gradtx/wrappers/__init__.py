"""Wrappers: transformations that contain another transformation. Import them from `gradtx`."""
