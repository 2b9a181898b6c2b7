"""Models of P(correct) and of tokens, and their ONNX graphs."""
