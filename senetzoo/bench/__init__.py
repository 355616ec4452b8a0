"""Benchmarks of the speed, memory and accuracy of networks, with the spread of the results."""
