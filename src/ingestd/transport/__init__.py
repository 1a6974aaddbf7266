"""Ways in and out, one package or module per protocol. Each pulls from `ingest`; `ingest` knows of none."""
