from __future__ import annotations

import pytest
from harness import Collector, Service, wait_until
from query_rig import SENT, decode

from collector.simulator.settings import SimulatorSettings


@pytest.fixture
def make_service():
    """Starts simulators; they end with the test."""
    services = []

    def make(**settings) -> Service:
        usual = {"seed": 7, "hits_per_second": 2000.0, "ghost_s": 0.4, "overlap_s": 0.5, "heartbeat_s": 0.2}
        service = Service(SimulatorSettings(**{**usual, **settings}))
        services.append(service)
        return service

    yield make
    for service in services:
        service.close()


@pytest.fixture
def make_collector(tmp_path):
    """Makes collectors; whatever still runs at the end of the test is killed, and must have left no child."""
    collectors = []

    def make(service: Service, **settings) -> Collector:
        folder = tmp_path / f"collector-{len(collectors)}"
        folder.mkdir()
        wait_s = settings.pop("wait_s", 0.6)
        collectors.append(Collector(service, folder, wait_s=wait_s, settings=settings))
        return collectors[-1]

    yield make
    for collector in collectors:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all(stack=True)
        print(collector.log)


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """The output folder of one run that lived through a cut, and of one `decode` with hostile records."""
    folder = tmp_path_factory.mktemp("collected")
    service = Service(
        SimulatorSettings(
            seed=7, hits_per_second=2000.0, ghost_s=0.4, overlap_s=0.5, heartbeat_s=0.2, total=SENT
        )
    )
    collector = Collector(service, folder)
    try:
        collector.start("--stop-after-hits", str(SENT))
        wait_until(lambda: service.sent > SENT // 3, "a third of the hits")
        service.cut("rst")
        assert collector.wait() == 0, collector.log
    finally:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all(stack=True)
        service.close()
    decode(folder)
    return collector.output
