"""Minibatches: which examples each step sees, how many of them, and who reads them."""
