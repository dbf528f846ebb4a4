"""The interface of client libraries and ssad: the request language, its options, addresses and paths."""
