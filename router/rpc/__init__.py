"""The gRPC surface: convert and delegate."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the library's own lines on stderr would stand beside our errors
