"""The processes of `bench/ros.py`: a player of frames, a robot's stand-in, and the same hops without the product."""
