"""
Wire schemas that a broker and its simulator share: generated message classes and nothing else. Pure.

After a change: `python -m grpc_tools.protoc -I. --python_out=. --mypy_out=. brokers/schemas/<name>.proto` (in the
project's folder, with its environment's programs on the PATH).
"""
