"""The commands of `python -m gradtx`: each parses its arguments, calls the lab, prints and writes."""
