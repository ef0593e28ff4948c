"""The parts that all transformations share. They use JAX trees and Optax, and depend on no method."""
