"""The page at `/`: ask, see the team that is picked, and watch it work."""
