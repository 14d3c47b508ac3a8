"""Streams: what a collection's documents mean, as values that are passed along."""
