"""What only lessons and exercises need: notebook (pictures, players, sliders) and checks (of exercises)."""
