"""How ONNX Runtime runs in this process."""

import onnxruntime


def single_threaded() -> onnxruntime.SessionOptions:
    """One thread that does not spin: small graphs gain nothing from more, and the cores have other work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
