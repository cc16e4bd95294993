"""Wire schemas that a broker and its simulator share: generated message classes and nothing else. Pure."""
