"""One method a file, its block and its recipe together. Import them from `gradtx`."""
