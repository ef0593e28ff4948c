"""From readings to conclusions: which of the chapter's challenges a run shows, and what to do.

**Source**: each rule and each finding names its own; thresholds that no theory gives were chosen on the labelled runs
of the tests (`tests/planted.py`), which hold the table of what was found and missed.

**Differs from** Optax, torch and Cockpit: those show numbers, this says what they mean.

**Costs**: a few passes of NumPy over the curves, on the host, after the run.
"""

from .diagnose import diagnose as diagnose
from .report import Diagnosis as Diagnosis
from .report import Finding as Finding
