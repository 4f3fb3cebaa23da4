"""Exact evaluation, layer by layer: only one layer's keys and values are alive."""
