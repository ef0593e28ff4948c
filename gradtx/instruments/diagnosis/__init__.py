"""From readings to conclusions: which of the chapter's challenges a run shows, and what to do.

Every rule is a principle with its source, told in its docstring beside what would prove it wrong. Nothing depends on
the unit of the loss, on its zero, or on the order of the rules. The labelled runs of the tests (`tests/planted.py`)
hold the table of what is found, what is missed, and which remedies cure.

**Differs from** Optax, torch and Cockpit: those show numbers, this says what they mean.

**Costs**: a few passes of NumPy over the curves, on the host, after the run.
"""

from .diagnose import diagnose as diagnose
from .report import Diagnosis as Diagnosis
from .report import Finding as Finding
