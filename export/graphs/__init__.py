"""From a module to ONNX: written, fused, rounded, and compared with what it was made from."""
