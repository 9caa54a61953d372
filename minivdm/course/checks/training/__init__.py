"""Checks of assignment 09: the pieces of a training step, and what they do to its noise."""

from minivdm.course.checks.training.loop import train
from minivdm.course.checks.training.loss import drop_labels, v_loss
from minivdm.course.checks.training.noise import blind_floor, mean_time_variances, offset_times
from minivdm.course.checks.training.update import clip_gradients, ema_update, learning_rate

CHECKS = (
    train,
    offset_times,
    v_loss,
    learning_rate,
    clip_gradients,
    ema_update,
    drop_labels,
    mean_time_variances,
    blind_floor,
)
