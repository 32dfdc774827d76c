"""Classifiers: networks with their weights, preprocessing, layers and fast forward passes."""
