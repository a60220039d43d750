"""Settings as text: components by name, YAML files, typed dataclasses."""
