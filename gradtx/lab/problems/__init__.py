"""Real training problems with one interface, small enough to train in seconds on two CPU cores."""

from collections.abc import Callable

from .convex import breast_cancer as breast_cancer
from .convex import diabetes as diabetes
from .images import digits as digits
from .images import digits_cnn as digits_cnn
from .images import mnist as mnist
from .problem import Batch as Batch
from .problem import Problem as Problem
from .sequences import adding as adding
from .sequences import copying as copying
from .supervised import classification as classification
from .supervised import regression as regression
from .text import characters as characters

PROBLEMS: dict[str, Callable[[], Problem]] = {
    make.__name__: make for make in (digits, digits_cnn, breast_cancer, diabetes, adding, copying, characters, mnist)
}
