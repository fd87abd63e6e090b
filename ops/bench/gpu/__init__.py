"""What a bundle's artefact for CUDA is worth on this GPU: `make bench-gpu`, or `python -m ops.bench.gpu BUNDLE`.

One run, one table: whether the service's own check accepts the GPU, how far its scores are from the CPU's, texts per
second against the runtime alone, and what CUDA graphs would add, each in float16, bfloat16 and float32 where that says
something. No Kafka, no torch; `onnx` is needed for the two precisions that are not shipped.
"""
