"""Scratch memory: the same place again and again, one for every thread and type of number."""

import threading

import torch

from direct_deepen.priors.cpu.scratch import Scratch


def test_the_same_place_is_given_again_and_grows_to_what_is_asked_for():
    scratch = Scratch()
    first = scratch.stretch(100, torch.float32)
    assert first.shape == (100,)
    assert scratch.stretch(40, torch.float32).data_ptr() == first.data_ptr()
    larger = scratch.stretch(200, torch.float32)
    assert larger.shape == (200,)
    assert scratch.stretch(100, torch.float32).data_ptr() == larger.data_ptr()


def test_types_and_threads_and_owners_have_places_of_their_own():
    scratch, found = Scratch(), []
    here = scratch.stretch(10, torch.float32)
    thread = threading.Thread(target=lambda: found.append(scratch.stretch(10, torch.float32)))
    thread.start()
    thread.join()
    others = [*found, scratch.stretch(10, torch.float64), Scratch().stretch(10, torch.float32)]
    assert here.data_ptr() not in {other.data_ptr() for other in others}
    assert others[1].dtype == torch.float64
