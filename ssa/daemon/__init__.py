"""ssad. The way of a request is in `pipeline`; read that first."""
