"""A run as one HTML page that a person can click through: curves, findings, remedies. It opens without a network."""
