"""Commands: `python -m hsa_jax.cli.NAME`."""
