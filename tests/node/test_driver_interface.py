"""Somebody removes the interface under the driver: it is made anew, or that is said once."""

from __future__ import annotations

from node.errors import NodeError
from node.io.memory import MemoryTun
from overlay.effects import Report
from tests.support.drivers import HERE, Bench, on_loop, turns


class FragileTun(MemoryTun):
    """An interface somebody can remove; readable for ever then, as the kernel's is."""

    gone = False
    can_return = True

    def remove(self) -> None:
        self.gone = True
        self._set()

    def read_run(self, room: memoryview, *, gap: int, most: int, large: int) -> list[int]:
        if self.gone:
            raise NodeError("interface memory0 is gone")
        return super().read_run(room, gap=gap, most=most, large=large)

    def is_there(self) -> bool:
        return not self.gone

    def reopen(self) -> None:
        if not self.can_return:
            raise NodeError("the name is taken")
        self.gone = False
        self.close()
        super(MemoryTun, self).__init__()


def fragile_bench() -> Bench:
    bench = Bench()
    bench.tun.close()
    bench.driver._tun = bench.tun = FragileTun()
    return bench


def test_a_removed_interface_is_made_anew_and_read_again():
    async def main() -> None:
        with fragile_bench() as bench:
            bench.tun.remove()
            await turns()
            why = {"interface": "memory0", "why": "interface memory0 is gone"}
            assert bench.log == [Report("tun.made-anew", why), "interface made", ("flush",)]
            bench.log.clear()
            bench.tun.inject(b"packet")
            await turns()
            assert bench.log == [("accept", b"packet"), ("flush",)]

    on_loop(main)


def test_an_interface_that_cannot_be_made_anew_is_reported_once_and_does_not_spin():
    async def main() -> None:
        with fragile_bench() as bench:
            bench.tun.can_return = False
            bench.tun.remove()
            await turns()
            why = {"why": "interface memory0 is gone, the name is taken"}
            assert bench.log == [Report("tun.lost", why), ("flush",)]
            bench.far.send(HERE, memoryview(b"x"), 0)
            await turns()
            assert bench.count("datagrams") == 1, "the rest goes on"

    on_loop(main)


def test_an_interface_that_could_not_be_made_anew_is_tried_again_when_asked():
    async def main() -> None:
        with fragile_bench() as bench:
            bench.tun.can_return = False
            bench.tun.remove()
            await turns()
            bench.driver.revive_tun()
            assert bench.tun.gone
            bench.tun.can_return = True
            bench.log.clear()
            bench.driver.revive_tun()
            why = {"interface": "memory0", "why": "interface memory0 is gone"}
            assert bench.log == [Report("tun.made-anew", why), "interface made"]
            bench.log.clear()
            bench.driver.revive_tun()
            assert bench.log == [], "it is there"
            bench.tun.inject(b"packet")
            await turns()
            assert bench.log == [("accept", b"packet"), ("flush",)]

    on_loop(main)
