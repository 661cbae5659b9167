"""Boxes of four, five and eight numbers."""

import cv2
import numpy as np
import pytest
import torch

from mmaib.functional import corners, enclosing, moved, scaled

ROTATED = torch.tensor(
    [[30.0, 20, 24, 8, 0.4], [12, 14, 6, 10, -1.2], [20, 20, 7, 7, 0]]
)


def as_sets(points):
    """Corners of each box, whichever comes first."""
    return np.array([sorted(one) for one in points.round(decimals=3).tolist()])


def test_corners_are_opencvs():
    theirs = [
        cv2.boxPoints(((x, y), (w, h), np.degrees(angle)))
        for x, y, w, h, angle in ROTATED.tolist()
    ]
    found = as_sets(corners(ROTATED))
    assert np.allclose(
        found, as_sets(torch.tensor(np.array(theirs))), atol=2e-3
    )


def test_all_forms_are_one():
    boxes = torch.tensor([[10.0, 4, 22, 12]])
    rotated = torch.tensor([[16.0, 8, 12, 8, 0]])
    eight = corners(boxes).flatten(1)
    for form in (boxes, rotated, eight):
        assert np.allclose(as_sets(corners(form)), as_sets(corners(boxes)))
        assert torch.allclose(enclosing(form), boxes)
        assert torch.allclose(
            enclosing(moved(form, 3, -2)), moved(boxes, 3, -2)
        )
        assert torch.allclose(
            enclosing(scaled(form, 2, 0.5)), scaled(boxes, 2, 0.5)
        )


@pytest.mark.parametrize('factor', [0.5, 3])
def test_a_rotated_box_is_scaled_as_its_corners(factor):
    found = corners(scaled(ROTATED, factor, factor))
    assert torch.allclose(found, corners(ROTATED) * factor, atol=1e-4)


def test_a_rotated_box_on_a_wider_image():
    """A quarter turn, so that the sides lie along the axes."""
    box = torch.tensor([10.0, 20, 4, 6, torch.pi / 2])
    expected = torch.tensor([7.0 * 2, 18, 13 * 2, 22])
    assert torch.allclose(enclosing(scaled(box, 2, 1)), expected, atol=1e-4)
