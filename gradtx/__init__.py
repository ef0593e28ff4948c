"""Composable, instrumented, Optax-compatible gradient transformations: a chapter on optimisation, runnable."""

# The whole public surface: `x as x` marks a name as exported, and nothing else is public.
from .clipping import clip_by_global_norm as clip_by_global_norm
from .clipping import clip_by_norm as clip_by_norm
from .clipping import clip_by_value as clip_by_value
from .methods.adadelta import adadelta as adadelta
from .methods.adadelta import scale_by_adadelta as scale_by_adadelta
from .methods.adagrad import adagrad as adagrad
from .methods.adagrad import scale_by_adagrad as scale_by_adagrad
from .methods.adam import adam as adam
from .methods.adam import scale_by_adam as scale_by_adam
from .methods.delta_bar_delta import delta_bar_delta as delta_bar_delta
from .methods.delta_bar_delta import scale_by_delta_bar_delta as scale_by_delta_bar_delta
from .methods.learning_rate import scale_by_learning_rate as scale_by_learning_rate
from .methods.momentum import heavy_ball as heavy_ball
from .methods.momentum import nesterov as nesterov
from .methods.momentum import nesterov_eval_params as nesterov_eval_params
from .methods.newton import newton as newton
from .methods.rmsprop import rmsprop as rmsprop
from .methods.rmsprop import scale_by_rms as scale_by_rms
from .methods.sgd import sgd as sgd
from .minibatches import shuffled_epochs as shuffled_epochs
from .schedules import RobbinsMonroReport as RobbinsMonroReport
from .schedules import inverse_time_decay as inverse_time_decay
from .schedules import linear_decay as linear_decay
from .schedules import robbins_monro as robbins_monro
from .stopping import early_stopping as early_stopping
from .wrappers.guarded import skip_nonfinite as skip_nonfinite
