"""Measures the whole product, from a broker's frame to a client's socket, and peers under the same load."""
