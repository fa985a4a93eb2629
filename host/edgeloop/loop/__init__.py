"""The loop of a run: train, build, measure, judge, move, until a network is proven."""
