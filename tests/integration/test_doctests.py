"""The examples in docstrings, run as they stand. They take `torch` and the
names of their own module for granted."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import mmaib.evaluation
import mmaib.functional
import mmaib.layers
import mmaib.models

PACKAGES = (mmaib.evaluation, mmaib.functional, mmaib.layers, mmaib.models)
MODULES = [
    'mmaib.losses.reports',
    'mmaib.sampling.draws',
    'mmaib.sampling.uncertainty',
    *(
        f'{package.__name__}.{module.name}'
        for package in PACKAGES
        for module in pkgutil.iter_modules(package.__path__)
    ),
]
# a base, a record that `capture_attention` gives, a builder of base libraries'
# models, what a loop of MMEngine's runs
WITHOUT = {
    'LatentEncoder',
    'CapturedMap',
    'build_attended_backbone',
    'build_with_aux_losses',
    'build_with_latent',
    'AuxLossMixin',
    'EfficientNetLite0',
    'with_aux_losses',
    'AttentionMetric',
    'CalibrationMetric',
    'DetectionCalibrationMetric',
    'ablation_metrics',
}


@pytest.mark.parametrize('name', MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names = {'torch': torch, **vars(module)}
    for test in doctest.DocTestFinder().find(module, globs=names):
        runner.run(test, out=report.append)
    assert not runner.failures, ''.join(report)


@pytest.mark.parametrize('package', PACKAGES, ids=lambda p: p.__name__)
def test_every_public_name_has_an_example(package):
    missing = {
        name
        for name in package.__all__
        if '>>> ' not in (getattr(package, name).__doc__ or '')
    }
    assert missing == WITHOUT & set(package.__all__)
