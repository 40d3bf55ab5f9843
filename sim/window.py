"""A window that shows pictures, by pygame as is Gymnasium's custom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

LEAST_PX = 480
"""Small pictures are enlarged to this height by a whole factor."""


class Window:
    """One window; it opens with the first picture.

    Raises:
        BadInput: pygame is not installed.
    """

    def __init__(self, title: str) -> None:
        try:
            import pygame
        except ImportError as error:
            raise BadInput(f"no window ({error}); pip install 'embodied_vision[viz]' or use rgb_array") from error
        self._pygame = pygame
        self._title = title

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a color image (H, W, 3).

        Raises:
            BadInput: no display can be reached.
        """
        pygame = self._pygame
        factor = max(1, LEAST_PX // picture.shape[0])
        size = (picture.shape[1] * factor, picture.shape[0] * factor)
        if not pygame.display.get_init():
            pygame.display.init()
        screen = pygame.display.get_surface()
        try:
            if screen is None or screen.get_size() != size:
                screen = pygame.display.set_mode(size)
                pygame.display.set_caption(self._title)
        except pygame.error as error:
            raise BadInput(
                f"no display for a window ({error}); use render_mode rgb_array, or set SDL_VIDEODRIVER=dummy"
            ) from error
        surface = pygame.surfarray.make_surface(np.ascontiguousarray(picture.swapaxes(0, 1)))
        screen.blit(pygame.transform.scale(surface, size), (0, 0))
        pygame.display.flip()
        pygame.event.pump()

    def close(self) -> None:
        """Close it."""
        self._pygame.display.quit()
