"""Messages that got lost on the way, by the numbers that publishers give them."""

from __future__ import annotations

from collections import OrderedDict

from rclpy.subscription import MessageInfo

_PUBLISHERS = 16


class Losses:
    """Counts what one subscription missed: DDS drops the oldest where its reader is too slow, and says nothing."""

    def __init__(self) -> None:
        self._newest: OrderedDict[bytes, int] = OrderedDict()

    def before(self, info: MessageInfo) -> int:
        """How many messages of the same publisher are missing between the last one and this one."""
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None or publisher is None:
            return 0  # a middleware that does not number them
        key = bytes(publisher["data"])
        last = self._newest.pop(key, None)
        self._newest[key] = number if last is None else max(number, last)
        if len(self._newest) > _PUBLISHERS:
            self._newest.popitem(last=False)
        return 0 if last is None else max(0, number - last - 1)
