"""Checks of assignment 17: clips as tokens, blocks that start as nothing, packs, windows, what is told by channel."""

from minivdm.course.checks.transformers.blocks import adaln_zero, lora_modulation, window_attention
from minivdm.course.checks.transformers.tokens import known_condition, pack, to_tokens

CHECKS = (to_tokens, adaln_zero, pack, lora_modulation, known_condition, window_attention)
