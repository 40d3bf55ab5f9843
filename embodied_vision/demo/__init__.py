"""The main job in one go: run the graph on unseen scenes, log, replay, and report."""
