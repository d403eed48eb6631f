"""The bake-off: candidates in, a scorecard and a reviewed mapping change out. Imported by the command line alone."""
