"""The demo: made-up content through a real local Kafka, and one screen that shows what becomes of it.

`python -m ops.demo` starts a Kafka and three workers in a temporary folder, plays `content.jsonl` and records that are
malformed on purpose, and ends by itself with nothing left running. Read `play.py` first.
"""
