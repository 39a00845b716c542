"""One person's words out of a novel or script: who speaks is told by rules, by a model for the rest."""
