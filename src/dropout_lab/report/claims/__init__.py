"""Claims on the report's page: what an experiment states, and what came out."""
