"""Draws conclusions from readings: which of the chapter's challenges a run shows, and how to cure them.

Every rule is a principle. Its docstring names the source and an observation that would prove the rule wrong. Nothing
depends on the unit of the loss, on its zero, or on the order of the rules. The labelled runs of the tests
(`tests/planted.py`) hold the table of challenges that are found or missed, and of remedies that cure.

**Differs from** Optax, torch and Cockpit: those show numbers, this explains them.

**Costs**: a few passes of NumPy over the curves, on the host, after the run.
"""

from .diagnose import diagnose as diagnose
from .report import Diagnosis as Diagnosis
from .report import Finding as Finding
