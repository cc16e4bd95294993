"""Brokers that are alike: what they share, one module or package a family, with an `adapter` function. Pure."""
