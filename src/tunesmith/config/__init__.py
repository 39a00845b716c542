"""From YAML, JSON and flags to one frozen RunConfig: schema, parsing, cross-field rules. Never imports torch."""
