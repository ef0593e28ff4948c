"""Experiments on real problems: train many, compare fairly, draw what came out. Needs `pip install 'gradtx[lab]'`."""

from .compare import METHODS as METHODS
from .compare import Comparison as Comparison
from .compare import Method as Method
from .compare import MethodResult as MethodResult
from .compare import compare as compare
from .compare import comparisons as comparisons
from .plots import plot_comparison as plot_comparison
from .problems import PROBLEMS as PROBLEMS
from .problems import Problem as Problem
from .problems import digits as digits
from .report import comparison_table as comparison_table
from .report import save_comparison as save_comparison
from .sweep import Curves as Curves
from .sweep import train_grid as train_grid
