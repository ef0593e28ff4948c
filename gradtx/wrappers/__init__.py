"""Transformations of transformations. Import them from `gradtx`."""
