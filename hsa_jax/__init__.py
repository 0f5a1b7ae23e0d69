"""Hierarchical sparse attention in JAX: train short, retrieve far."""
