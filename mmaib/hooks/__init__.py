"""Hooks of MMEngine's Runner."""

from .attention_vis_hook import AttentionVisHook

__all__ = ['AttentionVisHook']
