"""Checks of assignment 12: what a number says of a video, and how far it can be trusted."""

from minivdm.course.checks.evaluation.predictions import best_of_two, psnr_of_samples
from minivdm.course.checks.evaluation.samples import expected_frechet, frechet_of_features, reader_score
from minivdm.course.checks.evaluation.similarity import ssim

CHECKS = (psnr_of_samples, reader_score, ssim, frechet_of_features, expected_frechet, best_of_two)
