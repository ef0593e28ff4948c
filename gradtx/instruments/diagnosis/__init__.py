"""From readings to conclusions: which of the chapter's challenges a run shows, and what to do."""

from .diagnose import diagnose as diagnose
from .report import Diagnosis as Diagnosis
from .report import Finding as Finding
