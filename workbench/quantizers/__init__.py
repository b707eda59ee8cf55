"""Fewer bits, same shapes: grids, methods that choose codes, packed storage and low-bit products."""
