"""What runs beside the service: demo, benchmarks, deployment files."""
