"""Benchmarks: both sides of every claim in one run on the real Kafka, as ratios.

`python -m ops.bench` prints the table and writes `build/bench.json`. Each side is a process of its own
(`python -m ops.bench.sides NAME`), fed from the same topics and measured the same way: how fast the end of the output
topic moves.
"""
