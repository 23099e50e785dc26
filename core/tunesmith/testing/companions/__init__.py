"""Local plugins that the conformance checks put next to a YAML: strategies, a method, an optimizer, a probe."""
