"""The jobs of a guarded server: their graphs, sampler runs, values and files."""
