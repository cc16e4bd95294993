"""Protocols under a broker's own that several brokers share, where no library fits. Pure: bytes in, bytes out."""
