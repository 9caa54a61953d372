"""How good a clip is: metrics (one clip at a time), seams (joints of blocks), frechet (two sets of clips)."""
