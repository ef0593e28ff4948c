"""Pictures that say what to conclude; one file a question."""
