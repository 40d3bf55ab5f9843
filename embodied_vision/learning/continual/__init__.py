"""Learning on from a stream of experience, without losing what was learnt before."""
