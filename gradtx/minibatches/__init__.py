"""Minibatches: which examples each step uses, how many, and which process reads them."""
