"""The certifier's three calls with everything by name, for tests that vary one argument at a time."""

from bench.smoothing.certifier import Smoothed


def _smoothed(classifier, arguments):
    numbers = {name: arguments.pop(name) for name in ("sigma", "num_classes", "batch_size")}
    return Smoothed(classifier=classifier, **numbers)


def certify(classifier, x, **arguments):
    return _smoothed(classifier, arguments).certify(x, **arguments)


def certify_group(classifier, images, **arguments):
    return _smoothed(classifier, arguments).certify_group(images, **arguments)


def predict(classifier, x, **arguments):
    return _smoothed(classifier, arguments).predict(x, **arguments)
