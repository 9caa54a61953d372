"""Checks of assignment 13: sentences, what a network does with them, and whether a clip obeys."""

from minivdm.course.checks.text_to_video.obedience import away_from, cross_attention, obedience_interval
from minivdm.course.checks.text_to_video.sentences import contrastive_loss, mean_of_words, read_caption

CHECKS = (away_from, mean_of_words, obedience_interval, read_caption, contrastive_loss, cross_attention)
