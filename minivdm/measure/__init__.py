"""How good a clip is: one clip at a time (metrics, tracks), joints of blocks (seams), two sets of clips (frechet).

Read metrics, tracks, obedience, seams, frechet; readers has the small networks behind them.
"""
