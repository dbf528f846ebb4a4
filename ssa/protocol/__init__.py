"""What a client library and ssad agree on: the request language, its options, addresses and paths."""
