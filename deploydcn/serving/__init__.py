"""Serve models: Open Inference Protocol v2 over HTTP and gRPC, with batching. `deploydcn serve` is its command."""
