"""The model bundle: manifest, registry, features of prompts."""
