"""Real training problems behind one interface, sized for seconds on two CPU cores."""

from collections.abc import Callable

from .images import digits as digits
from .images import digits_cnn as digits_cnn
from .images import mnist as mnist
from .problem import Batch as Batch
from .problem import Problem as Problem
from .supervised import classification as classification
from .supervised import regression as regression

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "digits": digits,
    "digits_cnn": digits_cnn,
    "mnist": mnist,
}
