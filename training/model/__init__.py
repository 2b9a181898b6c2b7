"""Models of P(correct) and of thinking tokens, and their ONNX graphs."""
