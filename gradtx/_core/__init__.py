"""What every transformation stands on. Knows JAX trees and Optax; knows no method."""
