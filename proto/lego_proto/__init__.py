"""The gRPC protocol between clients and the guidance server."""
