"""Record flows of a small network on loopback addresses: normal life first, then normal life with attacks.

    python -m datasets.record_flows --minutes 40 --work /tmp/flows --out datasets/flows

The recorder moves into a network namespace of its own, which has a loopback interface and nothing else, so that no
packet can leave the machine and nobody else's packets are seen. Needs Linux, root, `tcpdump`, `openssl`, `ip` and
nfstream. `--derive` makes the tables again from what `--work` holds.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

from datasets.flows import attacks, normal, servers, table
from datasets.flows.network import Network, load_ledger, save_ledger, tls_contexts

CLONE_NEWNET = 0x40000000
QUIET_SHARE = 0.55  # of the recording, before the first attack
SETTLE_SECONDS = 8.0  # between the last step and the end of the capture


def isolate() -> None:
    """Move this process into a network namespace of its own, with a loopback interface like an Ethernet."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace; recording needs root")
    # Packets of at most 1,500 bytes, one segment each, as they would be on a wire.
    subprocess.run(["ip", "link", "set", "lo", "up", "mtu", "1500", "gso_max_segs", "1"], check=True)
    names = [name for _, name in socket.if_nameindex()]
    if names != ["lo"]:
        raise RuntimeError(f"the namespace has interfaces {names}, but only 'lo' may be there")


def capture(pcap: Path, log: Path) -> subprocess.Popen:
    """Start to capture the headers of all packets; returns when the capture runs."""
    command = ["tcpdump", "-i", "lo", "-s", "96", "-B", "16384", "-Z", "root", "-w", str(pcap), "tcp or udp"]
    child = subprocess.Popen(command, stderr=log.open("w"))
    deadline = time.monotonic() + 10
    while "listening on" not in log.read_text():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"tcpdump does not capture: {log.read_text()}")
        time.sleep(0.1)
    return child


def launch(net: Network, attack: attacks.Attack) -> None:
    """Let an attack run beside everything else."""
    net.spawn(attacks.run(net, attack))


async def live(net: Network, seconds: float, quiet: float, scale: float, ledger: Path) -> None:
    """Let the network live for `seconds`; attacks begin after `quiet` s."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    listening = await servers.start(net)
    life = normal.begin(net, scale)
    schedule = [loop.call_later(quiet + attack.start, launch, net, attack) for attack in attacks.plan(seconds - quiet)]
    while (now := loop.time() - begun) < seconds:
        await asyncio.sleep(min(60.0, seconds - now))
        save_ledger(ledger, net.ledger)
        used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(
            f"{now / 60:5.1f} min  tasks {len(net.tasks)}  attackers' sockets {len(net.ledger)}  cpu {used:.0f} s",
            flush=True,
        )
    for handle in schedule:
        handle.cancel()
    for task in life:
        task.cancel()
    await asyncio.sleep(SETTLE_SECONDS)
    for server in listening:
        server.close()
    save_ledger(ledger, net.ledger)
    loop.set_exception_handler(lambda *_: None)  # what is still open now is cut off on purpose


def record(work: Path, minutes: float, seed: int, scale: float) -> None:
    """Record packets, the log of the attackers' sockets and the beginning of time into `work`."""
    work.mkdir(parents=True, exist_ok=True)
    os.nice(10)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    isolate()
    net = Network(seed, tls_contexts(work))
    child = capture(work / "capture.pcap", work / "tcpdump.log")
    try:
        (work / "recording.json").write_text(json.dumps({"origin": time.time(), "minutes": minutes, "seed": seed}))
        asyncio.run(live(net, 60 * minutes, 60 * minutes * QUIET_SHARE, scale, work / "ledger.csv"))
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()
        print((work / "tcpdump.log").read_text())


def derive(work: Path, out: Path) -> None:
    """Make the two tables from what `record` left in `work`."""
    origin = json.loads((work / "recording.json").read_text())["origin"]
    entries = load_ledger(work / "ledger.csv")
    plan = {attack.id: attack for attack in attacks.plan(attacks.PART)}
    kinds, notes = ({name: getattr(attack, what) for name, attack in plan.items()} for what in ("kind", "note"))
    rows = table.table(table.capture_flows(work / "capture.pcap"), table.Labels(entries), kinds, origin)
    counts = Counter(str(row[-1]) for row in rows)
    table.write(out / "flows.csv.xz", table.COLUMNS, rows)
    table.write(out / "attacks.csv", table.ATTACK_COLUMNS, table.attack_rows(entries, kinds, notes, counts, origin))
    print(f"wrote {len(rows)} flows, {len(rows) - counts['']} of them of {len(counts) - 1} attacks")


def main() -> None:
    """Parse the command line, record, derive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40, help="length; attacks come in the last 45 percent")
    parser.add_argument("--work", type=Path, required=True, help="folder for packets and logs")
    parser.add_argument("--out", type=Path, default=Path("datasets/flows"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="how often people do things")
    parser.add_argument("--derive", action="store_true", help="only make the tables again")
    args = parser.parse_args()
    if not args.derive:
        record(args.work, args.minutes, args.seed, args.scale)
    derive(args.work, args.out)


if __name__ == "__main__":
    main()
