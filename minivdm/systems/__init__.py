"""Published systems, one file each: every one composes the core and changes no contract of it. Lessons 13 and on.

text_to_video and clip, which measures how well a clip fits its text (lesson 13).
progressive_distillation, then consistency, which builds on it; few_steps samples their students (lesson 15).
latent_diffusion, align_your_latents, modelscope, stable_video_diffusion, show_1, retrieval: import by name (lesson 16).
dit, sora_patches and walt, which are modules to import by name: dit.dit, walt.loss (lesson 17).
"""

from minivdm.systems.clip import Clip, contrastive_loss, frame_consistency, load_clip, recall_at_1, similarity
from minivdm.systems.consistency import ConsistencyDistillation, ExactConsistency, consistency_step
from minivdm.systems.few_steps import student_of, student_sampling
from minivdm.systems.progressive_distillation import (
    AffineStudent,
    ProgressiveDistillation,
    TooManySteps,
    student_times,
    target_v,
    target_x,
    walk,
)
from minivdm.systems.text_to_video import away_from_text, text_to_video

__all__ = [
    "AffineStudent",
    "Clip",
    "ConsistencyDistillation",
    "ExactConsistency",
    "ProgressiveDistillation",
    "TooManySteps",
    "away_from_text",
    "consistency_step",
    "contrastive_loss",
    "frame_consistency",
    "load_clip",
    "recall_at_1",
    "similarity",
    "student_of",
    "student_sampling",
    "student_times",
    "target_v",
    "target_x",
    "text_to_video",
    "walk",
]
