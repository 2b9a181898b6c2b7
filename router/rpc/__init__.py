"""The gRPC surface: convert and delegate."""
