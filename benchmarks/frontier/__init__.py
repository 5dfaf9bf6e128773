"""The latency and quality of one LEGO query, sampling by sampling, on every engine, beside the diffusers pipeline."""
