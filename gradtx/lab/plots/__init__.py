"""Pictures whose headlines state a conclusion; one file per question."""
